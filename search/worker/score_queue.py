"""What Optuna is told of a trial's epochs: in order, at once if the storage is there, later if it is not."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from affinity_search.storage.database.failures import first_line
from affinity_search.storage.database.patience import at_once, is_transient
from affinity_search.storage.errors import StorageGoneError

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0


@dataclass(frozen=True)
class Report:
    """What Optuna is told after an epoch, counted from 0 as its steps are: the best 1 − macro F1 so far."""

    epoch: int
    value: float


class Reports:
    """Training never waits for the storage: what cannot be sent waits, and is tried again in pauses that grow."""

    def __init__(self, send: Callable[[Report], None], limit_s: float | None) -> None:
        """`send` reports one epoch; `limit_s` is how long an outage may last, None for ever."""
        self._send = send
        self._limit_s = limit_s
        self._waiting: deque[Report] = deque()
        self._away_since: float | None = None
        self._next_try = float("-inf")
        self._pause_s = FIRST_PAUSE_S

    def add(self, report: Report, then: Callable[[], bool]) -> bool:
        """Report it and those that wait, and ask `then`; False while the storage is away.

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
        """Send all that wait, in their order."""
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
