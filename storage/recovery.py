"""Making good what dying workers leave behind: places whose lease ended, and Optuna trials that nobody ends.

A reconciliation of the places' rows (which decide) and Optuna's trials (which follow). Anybody may run it any number of
times, at once, and be killed half-way: every step is one conditional update, and the next run does the rest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from storage.attributes import attributes
from storage.background import Background
from storage.patience import at_once, is_transient
from storage.places import DEFAULT_LEASE_S, Places
from storage.study import StoredStudy
from storage.tables import PlaceState

LOOKS_A_LEASE = 12  # of the observer's own
WRITING_S = 30.0  # between the write of a place's end and that of its trial's, whose pictures come in between


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
        places = Places.of(self.study.refreshed())  # the limit of attempts may have changed
        held = places.rows(PlaceState.HELD)
        if held:
            # A SQLite file locked by another program can still be read: its holders' silence proves nothing.
            places.prove_writable()
        running = self.study.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        now = self._clock()
        if now - self._last_look > self._gap_s:
            self._seen.clear()
        self._last_look = now
        return self._expire(places, held, now) + self._complete_halves(places, running, now)

    def _unchanged_s(self, key: tuple[str, int], mark: Any, now: float) -> float:
        """For how long this observer has seen the same mark."""
        seen = self._seen.get(key)
        if seen is None or seen.mark != mark:
            self._seen[key] = seen = _Seen(mark, now)
        return now - seen.since

    def _expire(self, places: Places, held: list[dict[str, Any]], now: float) -> list[str]:
        lines = []
        for row in held:
            silent_s = self._unchanged_s(("place", row["number"]), (row["lease"], row["lease_until"]), now)
            if silent_s < row["lease_s"]:
                continue
            reason = f"lease ended: {row['worker']} on {row['host']} not heard of for {silent_s:.0f} s"
            if places.expire(row, reason):
                if row["trial"] is not None:
                    end_trial(self.study, row["trial"], TrialState.FAIL, reason=reason)
                lines.append(f"place {row['number']}: {reason}")
        return lines

    def _complete_halves(self, places: Places, running: list[FrozenTrial], now: float) -> list[str]:
        """End the RUNNING trials that their place's row says are over."""
        if not running:
            return []
        # Read after the trials: a trial that began since is not in the list, and one that ended since is told once.
        rows = places.rows()
        by_trial = {row["trial"]: row for row in rows if row["trial"] is not None}
        # None: a trial that says nothing of its place
        beginning = {None, *(row["number"] for row in rows if is_beginning(row))}
        lines = [
            self._complete_half(trial, by_trial.get(trial.number), attributes(trial).get("place") in beginning, now)
            for trial in running
        ]
        return [line for line in lines if line]

    def _complete_half(self, trial: FrozenTrial, row: dict[str, Any] | None, beginning: bool, now: float) -> str | None:
        if row is not None and row["state"] == PlaceState.HELD:
            return None
        # Its worker is writing the other half this moment, or died there. The place of a new trial may wait long for
        # its own half: the storage can be away just for that worker.
        patience_s = DEFAULT_LEASE_S if row is None and beginning else WRITING_S
        if self._unchanged_s(("trial", trial.number), row and row["state"], now) < patience_s:
            return None
        state, value = _ending(row)
        reason = (row and row["reason"]) or "its worker ended without closing it"
        end_trial(self.study, trial.number, state, value, reason)
        return f"trial {trial.number} closed as {state.name}: its worker ended without closing it"


class RecoveryThread(Background):
    """Within its context a thread looks every `every_s`, whether or not anybody wants a trial just then."""

    def __init__(self, study: StoredStudy, say: Callable[[str], None], every_s: float) -> None:
        super().__init__("recovery")
        self._recovery = Recovery(study, every_s=every_s)
        self._say = say
        self._every_s = every_s

    def _run(self) -> None:
        while not self._done.wait(self._every_s):
            try:
                with at_once():
                    lines = self._recovery.look()
            except Exception as error:
                # While the storage is away there is nothing to mend; the gap makes the observer watch anew. Whatever
                # else went wrong is told, and must not end the watch over everybody's places.
                lines = [] if is_transient(error) else [f"recovery failed: {error}"]
            for line in lines:
                self._say(line)


def is_beginning(row: Mapping[str, Any]) -> bool:
    """Whether the place's holder has not written yet which trial is its own."""
    return row["state"] == PlaceState.HELD and row["trial"] is None


def _ending(row: dict[str, Any] | None) -> tuple[TrialState, float | None]:
    """How the trial of a place ended, by the place's row; one that is in no row belongs to an attempt that was lost."""
    if row is not None and row["state"] == PlaceState.COMPLETE:
        return TrialState.COMPLETE, row["value"]
    if row is not None and row["state"] == PlaceState.PRUNED:
        return TrialState.PRUNED, None
    return TrialState.FAIL, None


def end_trial(
    study: StoredStudy, number: int, state: TrialState, value: float | None = None, reason: str | None = None
) -> None:
    """Tell Optuna how a trial ended; nothing happens if somebody has told it already, or deleted the study.

    A `reason` is kept with a trial that failed.
    """
    # KeyError is Optuna's answer for a trial that is not there.
    with contextlib.suppress(UpdateFinishedTrialError, KeyError):
        if reason is not None and state == TrialState.FAIL:
            study.describe_trial(number, reason=reason)
        study.optuna.tell(number, value, state=state, skip_if_finished=True)
