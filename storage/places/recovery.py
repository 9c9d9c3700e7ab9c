"""Making good what dying workers leave behind: places whose lease ended, and Optuna trials that nobody ends.

A reconciliation of the places' rows (which decide) and Optuna's trials (which follow). Anybody may run it any number of
times, at once, and be killed half-way: every step is one conditional update, and the next run does the rest.
"""

from __future__ import annotations

import time
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


@dataclass(frozen=True)
class Half:
    """A RUNNING Optuna trial of an attempt that is over, and how it is to end.

    The place's row has decided that for good, so anybody may end the trial, at once. Only a trial that names no place
    (`place` is None: another program made it) is undecided: somebody may yet be at it.
    """

    trial: int
    place: int | None
    state: TrialState
    value: float | None
    reason: str


def find_halves(study: StoredStudy) -> list[Half]:
    """The trials that workers left without an end, because they died between the two, or are writing it right now."""
    running = study.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if not running:
        return []
    # Read after the trials: a trial that began since is not among them, and one that ended since is told once.
    told = [TrialFacts.of(trial) for trial in running]
    rows = Places.of(study).rows_at(*(facts.place for facts in told if facts.place is not None))
    halves = [
        _half(trial, facts, None if facts.place is None else rows.get(facts.place))
        for trial, facts in zip(running, told, strict=True)
    ]
    return [half for half in halves if half is not None]


def complete_halves(study: StoredStudy) -> list[str]:
    """End the trials that their places' rows have decided; one line for each."""
    return [complete_half(study, half) for half in find_halves(study) if half.place is not None]


def complete_half(study: StoredStudy, half: Half) -> str:
    """End the trial; returns the line that tells it."""
    end_trial(study, half.trial, half.state, half.value, half.reason)
    return f"trial {half.trial} closed as {half.state.name}: {half.reason}"


ENDINGS = {PlaceState.COMPLETE: TrialState.COMPLETE, PlaceState.PRUNED: TrialState.PRUNED}


def _half(trial: FrozenTrial, facts: TrialFacts, row: Place | None) -> Half | None:
    """None for a trial that somebody trains, or is just beginning."""
    place = facts.place
    if row is not None and row.trial == trial.number:
        if row.state == PlaceState.HELD:
            return None
        if row.state in ENDINGS:
            return Half(trial.number, place, ENDINGS[row.state], _value(trial, row), "as its place is")
        return Half(trial.number, place, TrialState.FAIL, None, row.reason or UNEXPLAINED)
    if row is not None and row.is_beginning and _is_holders(facts, row):
        return None
    return Half(trial.number, place, TrialState.FAIL, None, UNEXPLAINED)


def _is_holders(facts: TrialFacts, row: Place) -> bool:
    """Whether the trial is that of the attempt that holds the place now."""
    return facts.worker == row.worker and facts.attempt == row.attempt


def _value(trial: FrozenTrial, row: Place) -> float | None:
    """The place's; pruned ones of 0.1.0 have none, and there the last score counted."""
    scores = trial.intermediate_values
    return scores[max(scores)] if row.value is None and scores else row.value


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
        self._seen: dict[tuple[str, int], _Seen] = {}
        self._gap_s = 3 * every_s
        self._last_look = float("-inf")

    def look(self) -> list[str]:
        """Compare with the last look and mend what is certain; returns one line for each thing mended."""
        self.study = self.study.refreshed()  # the limit of attempts may have changed, or it was stopped
        places = Places.of(self.study)
        held = places.held()
        if held:
            # A SQLite file locked by another program can still be read: its holders' silence proves nothing.
            self.study.backend.prove_writable()
        halves = find_halves(self.study)
        now = self._clock()
        if now - self._last_look > self._gap_s:
            self._seen.clear()
        self._last_look = now
        return self._expire(places, held, now) + self._complete(halves, now)

    def _unchanged_s(self, key: tuple[str, int], mark: Any, now: float) -> float:
        """For how long this observer has seen the same mark."""
        seen = self._seen.get(key)
        if seen is None or seen.mark != mark:
            self._seen[key] = seen = _Seen(mark, now)
        return now - seen.since

    def _expire(self, places: Places, held: list[HeldPlace], now: float) -> list[str]:
        lines = []
        for row in held:
            silent_s = self._unchanged_s(("place", row.number), (row.lease, row.lease_until), now)
            if silent_s < row.lease_s:
                continue
            reason = f"lease ended: {row.worker} on {row.host} not heard of for {silent_s:.0f} s"
            if places.expire(row, reason):
                if row.trial is not None:
                    end_trial(self.study, row.trial, TrialState.FAIL, reason=reason)
                lines.append(f"place {row.number}: {reason}")
        return lines

    def _complete(self, halves: list[Half], now: float) -> list[str]:
        """Decided halves at once; a trial of another program when nobody has ended it for as long as a lease."""
        return [
            complete_half(self.study, half)
            for half in halves
            if half.place is not None or self._unchanged_s(("trial", half.trial), None, now) >= DEFAULT_LEASE_S
        ]


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
