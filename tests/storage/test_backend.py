"""Opening a database, on SQLite and PostgreSQL alike."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Together
from sqlalchemy import inspect, select, text

from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.database.sqlite.connections import WaitingConnection
from affinity_search.storage.errors import StorageError


def test_eight_processes_open_a_fresh_database_together(database_url: str, together: Together) -> None:
    assert together("open_fresh", database_url, ["-"] * 8) == [True] * 8
    opened = open_backend(database_url, create=False)
    with opened.engine.connect() as connection:
        assert connection.execute(select(tables.schema.c.version)).all() == [(tables.SCHEMA_VERSION,)]
    opened.close()


def test_tables_are_made_once_and_kept(backend: Backend, database_url: str) -> None:
    names = set(inspect(backend.engine).get_table_names())
    assert set(tables.metadata.tables) < names
    assert "trials" in names, "Optuna's tables are in the same database"
    again = open_backend(database_url, create=True)
    assert set(inspect(again.engine).get_table_names()) == names
    again.close()


def test_nothing_is_created_for_a_reader(database_url: str) -> None:
    with pytest.raises(StorageError):
        open_backend(database_url, create=False)
    with pytest.raises(StorageError):
        open_backend(database_url, create=False)


def test_a_creation_that_was_cut_off_is_completed(backend: Backend, database_url: str) -> None:
    with backend.engine.begin() as connection:  # the version is written last
        connection.execute(text("DELETE FROM affinity_schema"))
        connection.execute(text("DROP TABLE affinity_events"))
    with pytest.raises(StorageError):
        open_backend(database_url, create=False)
    again = open_backend(database_url, create=True)
    assert inspect(again.engine).has_table("affinity_events")
    again.close()


def test_the_clock_is_the_database_s(backend: Backend) -> None:
    assert abs(backend.time() - time.time()) < 5
    earlier = backend.time()
    assert earlier <= backend.time()


def test_the_lock_admits_one_at_a_time(backend: Backend, database_url: str) -> None:
    """Creation and changes in different processes are serialised by it; the study tests race for it."""
    with backend.exclusive():
        pass
    with backend.exclusive():  # it was left
        assert backend.time() > 0


def test_sqlite_waits_for_others_and_writes_a_log(sqlite: Backend) -> None:
    for engine in (sqlite.engine, sqlite.rdb.engine):
        with engine.connect() as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
            assert connection.execute(text("PRAGMA busy_timeout")).scalar_one() == 60_000


def test_a_new_file_that_another_connection_is_writing_to_is_waited_for(tmp_path: Path) -> None:
    """Giving it its mode fails at once there, whatever time-out SQLite was given: two launches at the same moment."""
    tried = threading.Event()

    class Watched(WaitingConnection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            try:
                return super().execute(sql, *values)
            finally:
                if "journal_mode" in sql:
                    tried.set()

    other = sqlite3.connect(tmp_path / "new.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(lambda: sqlite3.connect(tmp_path / "new.db", factory=Watched, check_same_thread=False))
        assert tried.wait(60)
        other.execute("COMMIT")
        assert opening.result(60).execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    other.close()
    opening.result().close()
