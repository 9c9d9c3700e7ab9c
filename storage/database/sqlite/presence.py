"""Whether a SQLite file is still where it was opened.

A process can go on using a file that was deleted or moved, but what it writes is lost when the last process ends. So
every request first checks the file and SQLite's two files beside it.
"""

from __future__ import annotations

import shlex
import sqlite3
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL
from sqlalchemy.event import listen

from affinity_search.storage.database.sqlite.connections import SharedConnection, open_to_read, open_to_write, settle
from affinity_search.storage.database.sqlite.rescue import Rescue, identity_of
from affinity_search.storage.errors import VanishedError
from affinity_search.storage.files import files_of

BESIDE = ("-wal", "-shm")  # SQLite's names for the write-ahead log and its index


class Presence:
    """The file at `path`, as it was opened here to read."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()  # SQLite's own files lie beside the file that a symbolic link leads to
        found = {file: identity_of(file) for file in (path, self._path, *self._beside())}
        self._files = {file: identity for file, identity in found.items() if identity}
        self._telling = threading.Lock()
        self._told: str | None = None

    def watch(self, engine: Engine) -> None:
        """Make every request of the engine check first, and every transaction once more before it commits."""
        listen(engine, "checkout", self._at_checkout)
        listen(engine, "commit", self._at_commit)

    def connect(self, database: str, **options: Any) -> SharedConnection:
        """SQLAlchemy's connection factory. It opens the file and never makes one."""
        self.check()
        return self._open(**options)

    @property
    def vanished(self) -> bool:
        """Whether a check has found the file gone."""
        return self._told is not None

    def check(self) -> None:
        """Check that the path still names the open file.

        Raises:
            VanishedError: it does not. The message says what happened and where the contents are.
        """
        if self._told is not None or self._missing():
            raise VanishedError(self._tell())

    def close(self) -> None:
        """Close the connections to the file."""

    def _open(self, **options: Any) -> SharedConnection:
        return open_to_read(self._path, **options)

    def _beside(self) -> list[Path]:
        """Other files that must exist while this process has the file open."""
        return []

    def _save(self) -> str:
        return "if a search used it, the search's last line says where its copy is"

    def _missing(self) -> str | None:
        """What happened to the first missing file; None if all are there."""
        for file, identity in self._files.items():
            try:
                now = identity_of(file)
            except OSError:
                continue  # the file system does not answer, which says nothing about the file
            if now is None:
                return f"{file} was deleted or moved away while it was in use"
            if now != identity:
                return f"{file} was replaced by another file while it was in use"
        return None

    def _tell(self) -> str:
        with self._telling:
            if self._told is None:
                self._told = f"{self._missing() or f'{self._path} had vanished'}; {self._save()}"
            return self._told

    def _at_checkout(self, connection: Any, record: Any, proxy: Any) -> None:
        self.check()
        settle(connection, record, proxy)

    def _at_commit(self, connection: Connection) -> None:
        """Stops a writer that waited for a lock while the file vanished: it must not write after the copy was made."""
        if self._told is not None or self._missing():
            raw: Any = connection.connection.dbapi_connection
            raw.rollback()  # the copy waits for this lock
            self.check()


class WritersPresence(Presence):
    """The same for a process that writes: when the file vanishes, its contents are saved.

    Two connections stay open until `close`. Through them the contents can be read after the file vanished.
    """

    def __init__(self, path: Path) -> None:
        """Raises sqlite3.Error if there is no such file or it is no database."""
        real = path.resolve()
        self._reader, self._writer = open_to_write(real), open_to_write(real)
        self._rescue = Rescue(real, self._reader, self._writer)
        super().__init__(path)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _open(self, **options: Any) -> SharedConnection:
        return open_to_write(self._path, **options)

    def _beside(self) -> list[Path]:
        return [self._path.with_name(self._path.name + suffix) for suffix in BESIDE]

    def _save(self) -> str:
        try:
            saved = self._rescue.save()
        except (OSError, sqlite3.Error) as error:
            return f"its contents could not be saved ({error}); go on from a backup"
        return f"its contents are saved in {saved}; go on with: affinity-search launch STUDY {self._options(saved)}"

    def _options(self, saved: Path) -> str:
        url = URL.create("sqlite", database=str(saved)).render_as_string()
        files = files_of(self._path)
        elsewhere = files != files_of(saved) and files.is_dir()
        return f"--storage {shlex.quote(url)}" + (f" --files {shlex.quote(str(files))}" if elsewhere else "")
