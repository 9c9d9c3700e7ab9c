"""Connections to a SQLite file that many processes share."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DisconnectionError
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_random

from affinity_search.storage.database.patience import LOCK_WAIT_S, lock_wait_s


class SharedConnection(sqlite3.Connection):
    """A SQLite connection that waits for others instead of failing.

    As a connection factory it works for Optuna's engine and for ours. An event listener would be too late: Optuna opens
    its first connections inside its constructor.
    """

    outdated = False  # whether the file may have changed without the connection noticing it

    def wait_for_locks(self, seconds: float) -> None:
        """How long a statement waits for another connection's lock before it fails."""
        self.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")


class WaitingConnection(SharedConnection):
    """One that reads and writes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wait_for_locks(LOCK_WAIT_S)
        # The write-ahead log lets readers and the one writer work side by side. With it and NORMAL, a killed process
        # loses no commit; a power cut can lose the last ones.
        self._write_ahead()
        self.execute("PRAGMA synchronous = NORMAL")

    @retry(
        retry=retry_if_exception_message(match="database is locked"),
        stop=stop_after_delay(LOCK_WAIT_S),
        wait=wait_random(0.01, 0.05),
        reraise=True,
    )
    def _write_ahead(self) -> None:
        # SQLite does not wait, in spite of its timeout, when two connections set the mode of a new file at the same
        # moment.
        self.execute("PRAGMA journal_mode = WAL")


class ReadingConnection(SharedConnection):
    """A connection that changes nothing: not the file and no file beside it. It works without write permission.

    To read a file with a write-ahead log, SQLite uses two files beside it. They exist while a process has them open.
    Even a connection that only reads would make them and leave them behind. Without them the file does not change until
    somebody opens it to write. So it is read as it is (`immutable`) until one of them appears.
    """

    def __init__(self, database: str, *args: Any, **kwargs: Any) -> None:
        self._path = Path(database)
        self._seen = _state(self._path) if _has_a_log(self._path) else None
        still = self._seen is not None and not self._seen.in_use
        super().__init__(f"{self._path.as_uri()}?mode=ro{'&immutable=1' * still}", *args, **kwargs | {"uri": True})
        self._still = still
        self.wait_for_locks(LOCK_WAIT_S)

    @property
    def outdated(self) -> bool:  # type: ignore[override]
        return self._still and _state(self._path) != self._seen


@dataclass(frozen=True)
class _State:
    in_use: bool
    size: int
    changed_ns: int


def _state(path: Path) -> _State:
    found = path.stat()
    # SQLite puts its files beside the file that a symbolic link names.
    return _State(Path(f"{path.resolve()}-wal").exists(), found.st_size, found.st_mtime_ns)


def _has_a_log(path: Path) -> bool:
    """Whether the file's header asks for a write-ahead log. SQLite does not open such a file without locks.

    Only SQLite reads the file here. If a process closes any descriptor of the file, all its locks end. Its other
    connections would go on without locks, and other processes might remove the log (see "How To Corrupt An SQLite
    Database File", 2.2). SQLite delays such a close.
    """
    if not path.stat().st_size:
        return False
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&nolock=1", uri=True)) as looking:
        try:
            looking.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.DatabaseError as error:
            return error.sqlite_errorname == "SQLITE_CANTOPEN"
    return False


def open_to_write(path: Path, **options: Any) -> WaitingConnection:
    """A connection to an existing file: `sqlite3.connect(path)` would make an empty one.

    It reads once, so from now on it holds the file's write-ahead log.
    """
    asked = {"timeout": LOCK_WAIT_S, "check_same_thread": False} | options | {"uri": True}
    connection = WaitingConnection(f"{path.as_uri()}?mode=rw", **asked)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    return connection


def open_to_read(path: Path, **options: Any) -> ReadingConnection:
    """The same, but only to read."""
    return ReadingConnection(str(path), **options)


def make_file(path: Path) -> None:
    """Make an empty database if there is none yet."""
    sqlite3.connect(f"{path.as_uri()}?mode=rwc", uri=True).close()


def settle(connection: Any, record: Any, proxy: Any) -> None:
    """Called when a pool hands out a connection. Urgent requests, such as a report or a renewal, wait only briefly for
    a lock.
    """
    if connection.outdated:
        raise DisconnectionError("the file has changed")  # the pool opens another
    connection.wait_for_locks(lock_wait_s())
