"""Recovery after workers that died: frees places when their leases end, and ends Optuna trials that nobody ends.

It compares the places' rows, which decide, with Optuna's trials, which follow. It may run any number of times, in
several processes, and may be killed half-way. Every step is one conditional update, and the next run does the rest.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from affinity_search.storage import DEFAULT_LEASE_S
from affinity_search.storage.database.optuna_storage.rdb import running_trials
from affinity_search.storage.database.patience import at_once, is_transient
from affinity_search.storage.database.runtime import Background
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.errors import VanishedError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.closing import close_if_flat
from affinity_search.storage.places.place import HeldPlace, Place
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.storage.trials.record import end_trial

LOOKS_A_LEASE = 12  # of the observer's own
UNEXPLAINED = "its worker ended without closing it"


class Action(ABC):
    """One thing that recovery would do. `text` describes it, `do` does it."""

    study: StoredStudy

    @property
    @abstractmethod
    def text(self) -> str:
        """What would be done, in words that follow "recovery would"."""

    @property
    @abstractmethod
    def watched(self) -> tuple[str, Any]:
        """What an observer watches, and its mark. A living holder changes the mark."""

    @property
    @abstractmethod
    def watch_s(self) -> float:
        """For how long an observer must have seen the same mark. 0 if there is nothing to wait for."""

    @abstractmethod
    def do(self, silent_s: float) -> str | None:
        """Do it after a watch of that length. Returns a line about it, or None if somebody else was faster."""


@dataclass(frozen=True)
class Expiry(Action):
    """A held place. It is taken from its holder if that has fallen silent."""

    study: StoredStudy
    held: HeldPlace

    @property
    def is_last(self) -> bool:
        """Whether it would use the place up."""
        return bool(Places.of(self.study).is_last(self.held.attempt))

    @property
    def text(self) -> str:
        return Places.of(self.study).expiry_text(self.held)

    @property
    def watched(self) -> tuple[str, Any]:
        return f"place {self.held.number}", (self.held.lease, self.held.lease_until)

    @property
    def watch_s(self) -> float:
        return self.held.lease_s

    def do(self, silent_s: float) -> str | None:
        held = self.held
        reason = f"lease ended: {held.worker} on {held.host} was silent for {silent_s:.0f} s"
        if not Places.of(self.study).expire(held, reason):
            return None
        if held.trial is not None:
            end_trial(self.study, held.trial, TrialState.FAIL, reason=reason)
        return f"place {held.number}: {reason}"


@dataclass(frozen=True)
class Half(Action):
    """A RUNNING Optuna trial of an attempt that is over, and the state to end it with.

    The place's row has decided that for good, so any process may end the trial at once. A trial that names no place
    (`place` is None) may still be at work: another program made it, so it is watched first.
    """

    study: StoredStudy
    trial: int
    place: int | None
    state: TrialState
    value: float | None
    reason: str

    @property
    def text(self) -> str:
        value = "" if self.value is None else f" with the value {self.value:.4f}"
        return f"close it as {self.state.name}{value}: {self.reason}"

    @property
    def watched(self) -> tuple[str, Any]:
        return f"trial {self.trial}", None

    @property
    def watch_s(self) -> float:
        return DEFAULT_LEASE_S if self.place is None else 0.0

    def do(self, silent_s: float = 0.0) -> str:
        end_trial(self.study, self.trial, self.state, self.value, self.reason)
        return f"trial {self.trial} closed as {self.state.name}: {self.reason}"


def find_halves(study: StoredStudy, held: Sequence[HeldPlace]) -> list[Half]:
    """Trials without an end, although their place has one. Their worker died in between, or is writing it now.

    `held` are the places that were held a moment ago. Of their trials nothing is read: each worker of a team looks, and
    would read every few seconds what all of the others have told so far.
    """
    study_id = study.optuna._study_id
    running = study.backend.transaction(lambda connection: running_trials(connection, study_id))
    if not running:
        return []
    storage, trained = study.backend.optuna, {place.trial for place in held}
    doubtful = [storage.get_trial(running[number]) for number in sorted(running.keys() - trained)]
    doubtful = [trial for trial in doubtful if trial.state == TrialState.RUNNING]
    # The rows are read after the trials. So a trial that began since is not among them, and one that ended since is
    # told once.
    told = [TrialFacts.of(trial) for trial in doubtful]
    rows = Places.of(study).rows_at(*(facts.place for facts in told if facts.place is not None))
    halves = [
        _half(study, trial, facts, None if facts.place is None else rows.get(facts.place))
        for trial, facts in zip(doubtful, told, strict=True)
    ]
    return [half for half in halves if half is not None]


def complete_halves(study: StoredStudy) -> list[str]:
    """End the trials that their places' rows have decided. Returns one line for each."""
    return [half.do() for half in find_halves(study, Places.of(study).held()) if half.place is not None]


ENDINGS = {PlaceState.COMPLETE: TrialState.COMPLETE, PlaceState.PRUNED: TrialState.PRUNED}


def _half(study: StoredStudy, trial: FrozenTrial, facts: TrialFacts, place: Place | None) -> Half | None:
    """None for a trial that a worker trains or is just beginning."""
    if place is not None and place.trial == trial.number:
        if place.state == PlaceState.HELD:
            return None
        if place.state in ENDINGS:
            value = _value(trial, place)
            return Half(study, trial.number, facts.place, ENDINGS[place.state], value, "as its place is")
        return Half(study, trial.number, facts.place, TrialState.FAIL, None, place.reason or UNEXPLAINED)
    if place is not None and place.is_beginning and _is_holders(facts, place):
        return None
    return Half(study, trial.number, facts.place, TrialState.FAIL, None, UNEXPLAINED)


def _is_holders(facts: TrialFacts, place: Place) -> bool:
    """Whether the trial belongs to the attempt that holds the place now."""
    return facts.worker == place.worker and facts.attempt == place.attempt


def _value(trial: FrozenTrial, place: Place) -> float | None:
    """The place's value. Pruned places of 0.1.0 have none; there the last score counted."""
    scores = trial.intermediate_values
    return scores[max(scores)] if place.value is None and scores else place.value


@dataclass(frozen=True)
class _Seen:
    """The last mark that an observer saw of a lease or trial, and since when it has not changed."""

    mark: Any
    since: float


class Recovery:
    """One observer of one study. Call `look` every few seconds.

    The database's clock alone must not end a lease. After an outage every lease is over, and the first process that
    comes back would end them all. So an observer ends a lease only if it has watched it for one full lease and saw no
    renewal. After a gap between two looks (the storage was away, or this process was stopped) the watch starts anew.
    """

    def __init__(
        self,
        study: StoredStudy,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = DEFAULT_LEASE_S / LOOKS_A_LEASE,
    ) -> None:
        """`every_s`: how often `look` will be called. Three times as long without a look is a gap."""
        self.study = study
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._gap_s = 3 * every_s
        self._last_look = float("-inf")

    def plan(self) -> list[Action]:
        """What must be done when it has been watched for long enough. Every held place is in the plan."""
        self.study = self.study.refreshed()  # the limit of attempts may have changed, or the study was stopped
        held = Places.of(self.study).held()
        return [*(Expiry(self.study, place) for place in held), *find_halves(self.study, held)]

    def look(self) -> list[str]:
        """Compare with the last look, and do what is certain. Returns one line for each thing done."""
        plan = self.plan()
        if any(isinstance(action, Expiry) for action in plan):
            # A SQLite file that another program locks can still be read, but holders cannot write: their silence proves
            # nothing.
            self.study.backend.prove_writable()
        now = self._clock()
        if now - self._last_look > self._gap_s:
            self._seen.clear()
        self._last_look = now
        watched = [(action, self._silent_s(action, now)) for action in plan]
        lines = [action.do(silent_s) for action, silent_s in watched if silent_s >= action.watch_s]
        lines.append(close_if_flat(self.study))
        return [line for line in lines if line is not None]

    def _silent_s(self, action: Action, now: float) -> float:
        """For how long this observer has seen the same mark."""
        what, mark = action.watched
        seen = self._seen.get(what)
        if seen is None or seen.mark != mark:
            self._seen[what] = seen = _Seen(mark, now)
        return now - seen.since


class RecoveryThread(Background):
    """Within its context a thread looks every `every_s`."""

    def __init__(
        self,
        study: StoredStudy,
        say: Callable[[str], None],
        every_s: float,
        on_look: Callable[[StoredStudy], None] = lambda study: None,
    ) -> None:
        """`on_look` is given the study as each look found it."""
        super().__init__("recovery")
        self._on_look = on_look
        self._recovery = Recovery(study, every_s=every_s)
        self._say = say
        self._every_s = every_s

    def _run(self) -> None:
        while not self._done.wait(self._every_s):
            try:
                with at_once():
                    lines = self._recovery.look()
                self._on_look(self._recovery.study)
            except VanishedError:
                raise
            except Exception as error:
                # While the storage is away there is nothing to do, and the gap makes the observer watch anew. Other
                # errors are told; they must not end this thread.
                lines = [] if is_transient(error) else [f"recovery failed: {error}"]
            for line in lines:
                self._say(line)
