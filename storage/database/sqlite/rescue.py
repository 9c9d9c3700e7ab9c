"""Copies a SQLite file that vanished while it was open. The copy is complete, made once, and never overwrites a file.

Several processes may have the vanished file open. They still share its locks. The first to take its write lock makes
the copy and writes the copy's path into the vanished file. The others read that path. Nobody commits after the copy was
made: see `presence`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from affinity_search.storage.database import tables
from affinity_search.storage.database.tables import Cause, PlaceState
from affinity_search.storage.files import base_name

LOCK_S = 10.0  # for another process that is in the middle of a commit
OPEN_FILES = Path("/proc/self/fd")
MARKS = "affinity_rescues"
# It changes with every claim, renewal, report and end. So if the file comes back and vanishes again, it is saved again.
AS_OF = (
    f"SELECT (SELECT count(*) || ' ' || total(lease_until) || ' ' || total(finished_at) FROM {tables.places.name})"
    " || ' ' || (SELECT count(*) || ' ' || total(trial_id) FROM trials)"
    " || ' ' || (SELECT count(*) FROM trial_intermediate_values)"
    f" || ' ' || (SELECT count(*) || ' ' || total(length(scores)) FROM {tables.evaluations.name})"
)
# No holder of a place writes to the copy. Without this, each place would wait for its lease to end.
RELEASE = f"UPDATE {tables.places.name} SET state = ?, attempt = attempt - 1, cause = ?, reason = ? WHERE state = ?"
RELEASED = (
    PlaceState.FREE.value,
    Cause.PREEMPTED.value,
    "given back: the database file vanished",
    PlaceState.HELD.value,
)


@dataclass(frozen=True)
class Identity:
    """What identifies a file independently of its name."""

    device: int
    inode: int


def identity_of(path: Path) -> Identity | None:
    """None if there is no file. Raises OSError if the file system does not answer."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Identity(found.st_dev, found.st_ino)


class Rescue:
    """What a copy of the file at `path` needs. It is collected while the file is there."""

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: sqlite3.Connection) -> None:
        """Takes two open connections: SQLite cannot copy from one that is in the middle of a write."""
        self._path, self._reader, self._writer = path, reader, writer
        self._identity, self._folder = identity_of(path), identity_of(path.parent)
        self._mode = stat.S_IMODE(path.stat().st_mode)

    def save(self) -> Path:
        """Make the copy, unless another process has made it. Returns its path.

        Raises:
            OSError, sqlite3.Error: no folder could be written; this is the error of the first.
        """
        try:
            self._writer.execute(f"PRAGMA busy_timeout = {LOCK_S * 1000:.0f}")
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return self._copy()  # the lock's holder hangs: better two copies than none
        try:
            return self._earlier() or self._copy_and_tell()
        finally:
            with contextlib.suppress(sqlite3.Error):  # on a full disk the others do not learn of this copy
                self._writer.execute("COMMIT")
                # If a log stayed behind, it would be used for the next file at this path.
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")

    def _earlier(self) -> Path | None:
        """The copy that another process has made, if nothing was written since."""
        self._writer.execute(f"CREATE TABLE IF NOT EXISTS {MARKS} (as_of TEXT, path TEXT)")
        told = self._writer.execute(f"SELECT path FROM {MARKS} WHERE as_of = ({AS_OF})").fetchone()
        return Path(told[0]) if told else None

    def _copy_and_tell(self) -> Path:
        saved = self._copy()
        self._writer.execute(f"INSERT INTO {MARKS} SELECT ({AS_OF}), ?", (str(saved),))
        return saved

    def _copy(self) -> Path:
        failures: list[Exception] = []
        for folder in self._folders():
            try:
                return self._copy_to(folder)
            except (OSError, sqlite3.Error) as error:
                failures.append(error)
        raise failures[0]

    def _folders(self) -> Iterator[Path]:
        """Where the copy may lie, the best place first: the folder of the file, and where that was moved."""
        parent = self._path.parent
        moved = self._moved_to()
        if identity_of(parent) != self._folder and moved:
            yield moved.parent
        if parent.is_dir():
            yield parent
        with contextlib.suppress(FileNotFoundError):
            yield Path.cwd()
        yield Path(tempfile.gettempdir())

    def _moved_to(self) -> Path | None:
        """The present path of the open file, if the system tells it (Linux) and the file was not deleted."""
        for entry in OPEN_FILES.iterdir() if OPEN_FILES.is_dir() else ():
            with contextlib.suppress(OSError):
                if identity_of(entry) == self._identity and identity_of(now := entry.readlink()) == self._identity:
                    return now
        return None

    def _copy_to(self, folder: Path) -> Path:
        unfinished = folder / f".{self._path.name}.{secrets.token_hex(4)}.part"
        try:
            unfinished.touch(mode=self._mode & 0o666)
            self._fill(unfinished)
            return _publish(unfinished, self._free_name(folder))
        finally:
            unfinished.unlink(missing_ok=True)

    def _fill(self, file: Path) -> None:
        with contextlib.closing(sqlite3.connect(file)) as copy:
            copy.execute("PRAGMA journal_mode = OFF")
            self._reader.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
            copy.execute(RELEASE, RELEASED)
            copy.commit()
        with file.open("rb+") as written:
            os.fsync(written.fileno())

    def _free_name(self, folder: Path) -> Path:
        """NAME.rescued.db, or with a number. An empty file reserves the name at once."""
        base, suffix = base_name(self._path), self._path.suffix or ".db"
        for infix in chain([".rescued"], (f".rescued-{number}" for number in count(2))):
            path = folder / f"{base}{infix}{suffix}"
            if path != self._path:
                with contextlib.suppress(FileExistsError):
                    path.touch(mode=self._mode & 0o666, exist_ok=False)
                    return path
        raise AssertionError("there is always another number")


def _publish(file: Path, name: Path) -> Path:
    file.replace(name)
    folder = os.open(name.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return name
