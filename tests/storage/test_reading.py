"""Reading changes nothing, creating asks before it writes beside others, and whoever may only read can read."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from conftest import Cli
from making import TINY, make, trained
from postgres_server import Server
from sqlalchemy import inspect, text
from stranger import run_as_stranger

from affinity_search.search.devices.packages import keras_home
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.database.failures import explain
from affinity_search.storage.database.runtime import user_at_host
from affinity_search.storage.errors import NoDatabaseError, StorageError
from affinity_search.storage.files import default_root
from affinity_search.storage.study import load_study, study_names
from affinity_search.storage.urls import parse_url

READERS = [
    ("status",),
    ("status", "x"),
    ("export", "x"),
    ("evaluate", "x"),
    ("embed", "x"),
    ("dashboard", "--port", "0"),
]


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file below the folder, by its bytes and when they were written."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def make_foreign(path: Path, mode: str = "DELETE") -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(f"PRAGMA journal_mode = {mode}")
        other.execute("CREATE TABLE recipes (name TEXT)")


@pytest.fixture(params=["rollback", "wal", "empty", "no tables", "optuna", "text"])
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that another program made."""
    path = tmp_path / "theirs.db"
    if request.param in ("rollback", "wal"):
        make_foreign(path, "WAL" if request.param == "wal" else "DELETE")
    elif request.param == "optuna":
        optuna.create_study(study_name="x", storage=f"sqlite:///{path}").optimize(lambda trial: 1.0, n_trials=1)
    elif request.param == "no tables":
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("CREATE TABLE gone (name TEXT)")
            other.execute("DROP TABLE gone")
    else:
        path.write_text("recipes" * 1000 if request.param == "text" else "")
    return path


@pytest.mark.parametrize("command", READERS)
def test_reading_another_program_s_file_changes_nothing(cli: Cli, theirs: Path, command: tuple[str, ...]) -> None:
    before = contents(theirs.parent)
    cli(*command, "--storage", f"sqlite:///{theirs}", fails=True).refused()
    assert contents(theirs.parent) == before


def test_doctor_changes_nothing_either(cli: Cli, theirs: Path) -> None:
    before = contents(theirs.parent)
    cli("doctor", "--storage", f"sqlite:///{theirs}", fails=True)
    assert contents(theirs.parent) == before


@pytest.mark.parametrize("command", [("status", "tiny"), ("export", "tiny"), ("status",)])
def test_reading_our_own_file_changes_nothing(
    cli: Cli, sqlite: Backend, sqlite_url: str, command: tuple[str, ...]
) -> None:
    trained(sqlite, trials=1)
    sqlite.close()
    folder = Path(str(sqlite.url.database)).parent
    before = contents(folder)
    cli(*command, "--storage", sqlite_url)
    assert contents(folder) == before


class TestCreatingBesideOthers:
    @pytest.mark.parametrize("command", ["create", "launch", "worker"])
    @pytest.mark.parametrize("theirs", ["rollback", "wal", "optuna"], indirect=True)
    def test_it_asks_first(self, cli: Cli, theirs: Path, command: str) -> None:
        before = contents(theirs.parent)
        said = cli(command, TINY, "--storage", f"sqlite:///{theirs}", fails=True).refused()
        assert "and no studies of affinity-search; name a new database with --storage, or add --into-existing" in said
        assert ("(recipes)" in said) != ("studies of Optuna" in said)
        assert contents(theirs.parent) == before

    @pytest.mark.parametrize("theirs", ["rollback", "optuna", "empty", "no tables"], indirect=True)
    def test_it_is_done_when_asked_for_or_nothing_is_there(self, cli: Cli, theirs: Path) -> None:
        url, asked = f"sqlite:///{theirs}", ["--into-existing"] if theirs.stat().st_size > 9000 else []
        if "recipes" in theirs.read_text(errors="replace"):
            asked = ["--into-existing"]
        cli("create", TINY, *asked, "--storage", url)
        cli("create", "tiny", "--trials", "9", "--storage", url)  # ours by now: nothing is asked
        opened = open_backend(url, create=False)
        assert study_names(opened) == ["tiny"]
        opened.close()

    def test_postgresql(self, postgres: Server) -> None:
        name = postgres.fresh_database()
        postgres.execute("CREATE TABLE recipes (name text)", name)
        with pytest.raises(NoDatabaseError, match="holds no studies of affinity-search"):
            open_backend(postgres.url(name), create=False)
        with pytest.raises(StorageError, match=r"another program's tables \(recipes\).*--into-existing"):
            open_backend(postgres.url(name), create=True)
        asked = open_backend(postgres.url(name), create=True, into_existing=True)
        assert study_names(asked) == []
        asked.close()
        open_backend(postgres.url(name), create=True).close()

    def test_a_table_that_optuna_needs_is_not_shared(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "x.db")) as other, other:
            other.execute("CREATE TABLE studies (name TEXT)")
        with pytest.raises(StorageError, match="has a table 'studies' of another program; use another database"):
            open_backend(f"sqlite:///{tmp_path / 'x.db'}", create=True, into_existing=True)

    def test_a_creation_that_died_after_its_first_table_goes_on(self, database_url: str) -> None:
        class Died(BaseException):
            pass

        def die(*arguments: object, **options: object) -> None:
            raise Died

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("affinity_search.storage.database.schema.bring_up_to_date", die)
            with pytest.raises(Died):
                open_backend(database_url, create=True)
        with pytest.raises(NoDatabaseError):
            open_backend(database_url, create=False)
        opened = open_backend(database_url, create=True)
        assert inspect(opened.engine).has_table("affinity_places")
        opened.close()

    @pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
    def test_an_encoding_without_every_letter_is_refused(self, postgres: Server, encoding: str) -> None:
        postgres.execute(f"CREATE DATABASE {encoding.lower()} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        url = postgres.url(encoding.lower())
        with pytest.raises(StorageError, match=f"stores text as {encoding}.*createdb --encoding=UTF8"):
            open_backend(url, create=True)
        with pytest.raises(NoDatabaseError):
            open_backend(url, create=False)


class TestALink:
    """A file is what it resolves to."""

    def test_it_has_the_lock_and_the_folder_of_the_file(self, sqlite: Backend, tmp_path: Path) -> None:
        make(sqlite)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        link = elsewhere / "link.db"
        link.symlink_to(Path(str(sqlite.url.database)))
        through = open_backend(f"sqlite:///{link}", create=True)
        with through.exclusive():
            assert load_study(through, "tiny").name == "tiny"
        assert default_root(through.url) == default_root(sqlite.url)
        assert [path.name for path in elsewhere.iterdir()] == ["link.db"]
        through.close()

    def test_a_link_to_a_file_that_is_to_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
        open_backend(f"sqlite:///{tmp_path / 'link.db'}", create=True).close()
        assert (tmp_path / "real.db").is_file()
        assert (tmp_path / "link.db").is_symlink()

    def test_links_in_a_circle(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "a.db").symlink_to(tmp_path / "b.db")
        (tmp_path / "b.db").symlink_to(tmp_path / "a.db")
        assert "leads to no file" in cli("status", "--storage", f"sqlite:///{tmp_path / 'a.db'}", fails=True).refused()


class TestWhoMayOnlyRead:
    @pytest.fixture
    def closed(self, sqlite: Backend) -> Iterator[Path]:
        """A study's file in a folder that other users may only read."""
        trained(sqlite, trials=1)
        sqlite.close()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = folder / "studies.db"
            shutil.copy(str(sqlite.url.database), path)
            folder.chmod(0o755)
            path.chmod(0o644)
            yield path

    @pytest.mark.parametrize("command", [("status", "tiny"), ("export", "tiny")])
    def test_nobody_has_it_open(self, closed: Path, command: tuple[str, ...]) -> None:
        ran = run_as_stranger(*command, "--storage", f"sqlite:///{closed}")
        assert ran.code == 0, ran.err
        assert "tiny" in ran.out + ran.err
        assert [path.name for path in closed.parent.iterdir()] == ["studies.db"]

    def test_its_owner_has_it_open(self, closed: Path) -> None:
        owner = open_backend(f"sqlite:///{closed}", create=False)
        make(owner, "fresh")  # in the log beside the file so far
        ran = run_as_stranger("status", "fresh", "--storage", f"sqlite:///{closed}")
        owner.close()
        assert ran.code == 0, ran.err

    def test_who_writes_is_told(self, closed: Path) -> None:
        ran = run_as_stranger("create", "tiny", "--trials", "9", "--storage", f"sqlite:///{closed}")
        assert "cannot be written" in ran.refused()
        assert ran.err.endswith("check the permissions of the file and its folder\n")


def test_a_reader_notices_that_somebody_writes(sqlite: Backend, sqlite_url: str) -> None:
    """It reads a file that nobody has open as it is; the pool's connections must not go on with that."""
    make(sqlite, "old")
    sqlite.close()
    reader = open_backend(sqlite_url, create=False, read_only=True)
    assert study_names(reader) == ["old"]
    writer = open_backend(sqlite_url, create=False)
    make(writer, "new")
    assert study_names(reader) == ["new", "old"]
    writer.close()
    assert study_names(reader) == ["new", "old"]
    with reader.engine.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.execute(text("DELETE FROM affinity_studies"))
    reader.close()


class TestNoHome:
    def test_what_lies_in_a_home_has_another_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("XDG_DATA_HOME")
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os, "getuid", lambda: 54321)
        root = default_root(parse_url("postgresql://u@h/d"))
        assert root.is_absolute()
        assert "~" not in str(root)
        assert keras_home() == Path("/tmp/.keras"), "as Keras itself"
        assert user_at_host().startswith("unknown@")

    @pytest.mark.parametrize("named", [True, False])
    def test_doctor_with_postgresql(self, postgres: Server, named: bool) -> None:
        url = postgres.url(postgres.fresh_database())
        ran = run_as_stranger("doctor", "--storage", url if named else url.replace("postgres@", ""))
        assert "Traceback" not in ran.err
        assert ("warning  storage" in ran.out + ran.err) is named
        assert named or "names no user, and this process's user has no name; write USER@HOST" in ran.out + ran.err


class TestLocks:
    """A process that closes the file by any descriptor loses the locks of all its connections to it.

    Then the last of the others removes the log under it, and the next connection here takes the old log's index for
    that of a new, empty log: "database disk image is malformed".
    """

    @staticmethod
    def open_again(url: str) -> None:
        open_backend(url, create=False).close()

    @staticmethod
    def read(url: str) -> None:
        open_backend(url, create=False, read_only=True).close()

    @staticmethod
    def refuse(url: str) -> None:
        explain(parse_url(url), sqlite3.DatabaseError("database disk image is malformed"))

    @pytest.mark.parametrize("look", [open_again, read, refuse])
    def test_a_look_leaves_the_locks_of_those_that_have_it_open(
        self, sqlite: Backend, sqlite_url: str, look: Callable[[str], None]
    ) -> None:
        make(sqlite)
        look(sqlite_url)
        self.write_elsewhere(sqlite_url)
        sqlite.check()  # SQLite's own files are still there: who wrote was not the last
        again = open_backend(sqlite_url, create=False)
        assert study_names(again) == ["other", "tiny"]
        again.close()

    @staticmethod
    def write_elsewhere(url: str) -> None:
        program = (
            "from making import make\nfrom affinity_search.storage.database.backend import open_backend\n"
            f"there = open_backend({url!r}, create=False)\nmake(there, 'other')\nthere.close()"
        )
        here = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", program], check=True, env=here)
