"""What a trial tells the storage after each epoch, and what the pruner answers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from affinity_search.storage.database.failures import first_line
from affinity_search.storage.database.patience import at_once, is_transient
from affinity_search.storage.errors import StorageGoneError
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import attempts_at, audited_after
from affinity_search.storage.trials.record import TrialRecord
from affinity_search.storage.trials.seeds import is_audited

if TYPE_CHECKING:
    from affinity_search.storage.places.claims import Claim

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0


@dataclass(frozen=True)
class Report:
    """What Optuna is told after an epoch: the best value so far. Epochs count from 0, as Optuna's steps do."""

    epoch: int
    value: float


class Reports:
    """Reports to the storage. Training never waits: a report that fails is tried again, in pauses that grow."""

    def __init__(self, send: Callable[[Report], None], limit_s: float | None) -> None:
        """`send` reports one epoch. `limit_s` is how long an outage may last; None: for ever."""
        self._send = send
        self._limit_s = limit_s
        self._waiting: deque[Report] = deque()
        self._away_since: float | None = None
        self._next_try = float("-inf")
        self._pause_s = FIRST_PAUSE_S

    def add(self, report: Report, then: Callable[[], bool]) -> bool:
        """Send the reports that wait and this one, then return `then()`. False while the storage is away.

        Raises:
            StorageGoneError: it has been away for longer than the limit.
        """
        self._waiting.append(report)
        if time.monotonic() < self._next_try:
            return False
        try:
            with at_once():
                self.flush()
                answer = then()
        except Exception as error:
            if not is_transient(error):
                raise
            self._wait(error)
            return False
        self._away_since, self._pause_s = None, FIRST_PAUSE_S
        return answer

    def flush(self) -> None:
        """Send all reports that wait, in their order."""
        while self._waiting:
            self._send(self._waiting[0])
            self._waiting.popleft()

    def _wait(self, error: Exception) -> None:
        now = time.monotonic()
        self._away_since = now if self._away_since is None else self._away_since
        away_s = now - self._away_since
        if self._limit_s is not None and away_s > self._limit_s:
            raise StorageGoneError.after(away_s, first_line(error)) from error
        self._next_try = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


class Pruning:
    """Asks the pruner whether a trial should stop. At an audited place its first yes is recorded and not asked again.

    Whether a place is audited follows from the study's seed and the place alone, so every attempt decides alike. A yes
    that an earlier attempt recorded stays, whatever the study file says since.
    """

    def __init__(self, study: StoredStudy, claim: Claim, record: TrialRecord) -> None:
        """Of a trial that has just begun; `record` is its own."""
        self._record = record
        self._audited = is_audited(study.spec.seed, claim.number, study.spec.pruner.audit or 0.0)
        self._after = _audited_before(study, claim)  # so many epochs were trained at the pruner's first yes
        self._told = False

    def should_stop(self, epochs: int) -> bool:
        """Ask after so many epochs. Once the pruner would have stopped an audited trial, nothing is asked: False."""
        if self._after is None:
            if not self._record.trial.should_prune():
                return False
            if not self._audited:
                return True
            self._after = epochs
        self.tell()
        return False

    def tell(self) -> None:
        """Record the pruner's yes, if there was one and it is not recorded yet: the storage may have been away."""
        if self._after is not None and not self._told:
            self._record.tell_audited(self._after)
            self._told = True


def _audited_before(study: StoredStudy, claim: Claim) -> int | None:
    """What an earlier attempt at the place recorded."""
    if claim.params is None or claim.draw is not None:  # the first attempt, or a final run, which nothing stops
        return None
    told = map(audited_after, attempts_at(study, claim.number))
    return next((after for after in told if after is not None), None)
