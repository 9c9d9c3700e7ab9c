"""Making good what dying workers leave behind: places whose lease ended, and Optuna trials that nobody ends.

A reconciliation of the places' rows (which decide) and Optuna's trials (which follow). Anybody may run it any number of
times, at once, and be killed half-way: every step is one conditional update, and the next run does the rest.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from affinity_search.storage import DEFAULT_LEASE_S
from affinity_search.storage.database.patience import at_once, is_transient
from affinity_search.storage.database.runtime import Background
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.errors import VanishedError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.place import HeldPlace, Place
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.storage.trials.record import end_trial

LOOKS_A_LEASE = 12  # of the observer's own
UNEXPLAINED = "its worker ended without closing it"


class Action(ABC):
    """One thing that recovery would do: `text` says it, `do` does it."""

    study: StoredStudy

    @property
    @abstractmethod
    def text(self) -> str:
        """What would be done, as it follows "recovery would"."""

    @property
    @abstractmethod
    def watched(self) -> tuple[str, Any]:
        """What an observer looks at, and its mark: whoever is still there changes that."""

    @property
    @abstractmethod
    def watch_s(self) -> float:
        """For how long an observer must have seen the same mark; 0 for what is decided."""

    @abstractmethod
    def do(self, silent_s: float) -> str | None:
        """Do it after so long a watch; returns the line that tells it, None if somebody else was faster."""


@dataclass(frozen=True)
class Expiry(Action):
    """A held place, which is taken from its holder if that has fallen silent."""

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
        reason = f"lease ended: {held.worker} on {held.host} not heard of for {silent_s:.0f} s"
        if not Places.of(self.study).expire(held, reason):
            return None
        if held.trial is not None:
            end_trial(self.study, held.trial, TrialState.FAIL, reason=reason)
        return f"place {held.number}: {reason}"


@dataclass(frozen=True)
class Half(Action):
    """A RUNNING Optuna trial of an attempt that is over, and how it is to end.

    The place's row has decided that for good, so anybody may end the trial, at once. Only a trial that names no place
    (`place` is None: another program made it) is undecided: somebody may yet be at it.
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


def find_halves(study: StoredStudy) -> list[Half]:
    """The trials that workers left without an end, because they died between the two, or are writing it right now."""
    running = study.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if not running:
        return []
    # Read after the trials: a trial that began since is not among them, and one that ended since is told once.
    told = [TrialFacts.of(trial) for trial in running]
    rows = Places.of(study).rows_at(*(facts.place for facts in told if facts.place is not None))
    halves = [
        _half(study, trial, facts, None if facts.place is None else rows.get(facts.place))
        for trial, facts in zip(running, told, strict=True)
    ]
    return [half for half in halves if half is not None]


def complete_halves(study: StoredStudy) -> list[str]:
    """End the trials that their places' rows have decided; one line for each."""
    return [half.do() for half in find_halves(study) if half.place is not None]


ENDINGS = {PlaceState.COMPLETE: TrialState.COMPLETE, PlaceState.PRUNED: TrialState.PRUNED}


def _half(study: StoredStudy, trial: FrozenTrial, facts: TrialFacts, place: Place | None) -> Half | None:
    """None for a trial that somebody trains, or is just beginning."""
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
    """Whether the trial is that of the attempt that holds the place now."""
    return facts.worker == place.worker and facts.attempt == place.attempt


def _value(trial: FrozenTrial, place: Place) -> float | None:
    """The place's; pruned ones of 0.1.0 have none, and there the last score counted."""
    scores = trial.intermediate_values
    return scores[max(scores)] if place.value is None and scores else place.value


@dataclass(frozen=True)
class _Seen:
    """What an observer saw last of one lease or trial, and since when it has looked the same."""

    mark: Any
    since: float


class Recovery:
    """One observer of one study. Call `look` every few seconds.

    The database's clock alone must not end a lease: after an outage every lease is over, and the first one back would
    expire everybody. So an observer ends one only if it has itself seen it unrenewed for one full lease, looking on all
    that time; a gap between two looks (the storage was away, or this process was stopped) starts the watch anew.
    """

    def __init__(
        self,
        study: StoredStudy,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = DEFAULT_LEASE_S / LOOKS_A_LEASE,
    ) -> None:
        """`every_s`: how often `look` will be called; thrice as long without a look is a gap."""
        self.study = study
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._gap_s = 3 * every_s
        self._last_look = float("-inf")

    def plan(self) -> list[Action]:
        """What is to be done as soon as it has been watched for long enough: every held place is among it."""
        self.study = self.study.refreshed()  # the limit of attempts may have changed, or it was stopped
        return [*(Expiry(self.study, held) for held in Places.of(self.study).held()), *find_halves(self.study)]

    def look(self) -> list[str]:
        """Compare with the last look and do what is certain of the plan; returns one line for each thing mended."""
        plan = self.plan()
        if any(isinstance(action, Expiry) for action in plan):
            # A SQLite file locked by another program can still be read: its holders' silence proves nothing.
            self.study.backend.prove_writable()
        now = self._clock()
        if now - self._last_look > self._gap_s:
            self._seen.clear()
        self._last_look = now
        watched = [(action, self._silent_s(action, now)) for action in plan]
        lines = [action.do(silent_s) for action, silent_s in watched if silent_s >= action.watch_s]
        return [line for line in lines if line is not None]

    def _silent_s(self, action: Action, now: float) -> float:
        """For how long this observer has seen the same mark."""
        what, mark = action.watched
        seen = self._seen.get(what)
        if seen is None or seen.mark != mark:
            self._seen[what] = seen = _Seen(mark, now)
        return now - seen.since


class RecoveryThread(Background):
    """Within its context a thread looks every `every_s`, whether or not anybody wants a trial just then."""

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
                # While the storage is away there is nothing to mend; the gap makes the observer watch anew. Whatever
                # else went wrong is told, and must not end the watch over everybody's places.
                lines = [] if is_transient(error) else [f"recovery failed: {error}"]
            for line in lines:
                self._say(line)
