"""Connections to a SQLite file that many processes share."""

from __future__ import annotations

import sqlite3
from typing import Any

from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_random

from storage.patience import LOCK_WAIT_S, lock_wait_s


class WaitingConnection(sqlite3.Connection):
    """A SQLite connection that waits for others instead of failing.

    As a connection factory it reaches Optuna's engine and ours alike, which an event listener would not: Optuna
    opens its first connections inside its constructor.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wait_for_locks(LOCK_WAIT_S)
        # The write-ahead log lets readers and the one writer work side by side; with it NORMAL loses no commit to a
        # killed process, only the last ones to a power cut.
        self._write_ahead()
        self.execute("PRAGMA synchronous = NORMAL")

    @retry(
        retry=retry_if_exception_message(match="database is locked"),
        stop=stop_after_delay(LOCK_WAIT_S),
        wait=wait_random(0.01, 0.05),
        reraise=True,
    )
    def _write_ahead(self) -> None:
        # SQLite does not wait, whatever it is told, when two connections give a new file its mode at the same moment.
        self.execute("PRAGMA journal_mode = WAL")

    def wait_for_locks(self, seconds: float) -> None:
        """How long a statement waits for another connection's lock before it fails."""
        self.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")


class ReadingConnection(WaitingConnection):
    """One that changes nothing, whatever it is asked to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA query_only = ON")


def settle_busy_timeout(connection: Any, record: Any, proxy: Any) -> None:
    """Whenever a pool hands a connection out: who is in a hurry (a report, a renewal) does not wait out a lock."""
    connection.wait_for_locks(lock_wait_s())
