"""Storage URLs: every mistake and failure is one line with the next step, and no password is ever in it."""

import sqlite3
import sys
from pathlib import Path
from urllib.parse import quote, unquote

import optuna
import pytest
from conftest import Cli, Ran
from postgres_server import PASSWORD, SECRETIVE, Server, _free_port
from sqlalchemy import update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from storage import tables
from storage.backend import Backend, open_backend
from storage.errors import StorageError
from storage.urls import explain, explain_late, parse_url, redact

SECRET = "hunter2%zz"
ENCODED = quote(SECRET, safe="")


def shows_no_secret(ran: Ran) -> bool:
    return not any(secret in ran.out + ran.err for secret in (SECRET, ENCODED, PASSWORD, quote(PASSWORD, safe="")))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("studies.db", "use sqlite:///studies.db"),
        ("/data/studies.db", "use sqlite:////data/studies.db"),
        ("", "is a path, not a storage URL; use sqlite:///affinity-search.db"),
        (f"redis://u:{ENCODED}@localhost/0", "storage of kind 'redis' is not supported"),
        (f"mysql+pymysql://u:{ENCODED}@localhost/x", "storage of kind 'mysql' is not supported"),
        (f"postgresql://u:{ENCODED}@localhost:port/x", "starting with 'postgresql'"),
        (f"postgresql://u:{SECRET}@[::1/x", "starting with 'postgresql'"),
        ("://", "cannot be read"),
        ("sqlite://", "in-memory SQLite database cannot be shared"),
        ("sqlite:///:memory:", "in-memory SQLite database cannot be shared"),
        ("sqlite:////no/such/folder/x.db", "mkdir -p /no/such/folder"),
        (f"postgresql+nonsense://u:{ENCODED}@localhost/x", "driver"),
    ],
)
@pytest.mark.parametrize("command", ["launch", "status"])
def test_urls_that_cannot_be_meant(cli: Cli, command: str, url: str, said: str) -> None:
    ran = cli(command, "digits", "--storage", url, fails=True)
    assert said in ran.refused()
    assert shows_no_secret(ran)


def test_the_short_names_of_postgresql_mean_the_driver_that_we_ship() -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        assert parse_url(f"{scheme}://u@h/d").drivername == "postgresql+psycopg"
    assert parse_url("postgresql+psycopg2://u@h/d").drivername == "postgresql+psycopg2", "a choice is respected"


@pytest.mark.parametrize("key", ["password", "sslpassword", "passfile", "sslkey"])
def test_redacted_urls(key: str) -> None:
    shown = redact(make_url(f"postgresql://u:{ENCODED}@h:5/d?{key}={ENCODED}&sslmode=require"))
    assert SECRET not in shown
    assert ENCODED not in shown
    assert shown.startswith("postgresql://u:***@h:5/d?")
    assert "sslmode=require" in shown


def test_a_missing_driver(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    ran = cli("status", "--storage", f"postgresql://u:{ENCODED}@localhost/x", fails=True)
    assert "pip install 'affinity-search[postgres]'" in ran.refused()
    assert shows_no_secret(ran)


class TestSqliteFiles:
    @pytest.mark.parametrize("command", [("status",), ("export", "x"), ("evaluate", "x"), ("dashboard", "--port", "0")])
    def test_a_reading_command_creates_no_file(self, cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
        ran = cli(*command, "--storage", f"sqlite:///{tmp_path}/none.db", fails=True)
        assert "no database at sqlite:///" in ran.refused()
        assert "launch" in ran.err
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("command", ["launch", "status"])
    def test_a_file_that_is_no_database(self, cli: Cli, tmp_path: Path, command: str) -> None:
        path = tmp_path / "thesis.doc"
        path.write_bytes(b"no database, but a long text about something else. " * 100)
        before = path.read_bytes()
        assert "is not a SQLite database" in cli(command, "x", "--storage", f"sqlite:///{path}", fails=True).refused()
        assert path.read_bytes() == before

    @pytest.mark.parametrize("command", ["launch", "status"])
    def test_a_folder_in_the_file_s_place(self, cli: Cli, tmp_path: Path, command: str) -> None:
        line = cli(command, "x", "--storage", f"sqlite:///{tmp_path}", fails=True).refused()
        assert str(tmp_path) in line

    def test_somebody_else_s_database(self, cli: Cli, sqlite_url: str) -> None:
        with sqlite3.connect(str(make_url(sqlite_url).database)) as other:
            other.execute("CREATE TABLE recipes (name TEXT)")
        other.close()
        assert "holds no studies of affinity-search" in cli("status", "--storage", sqlite_url, fails=True).refused()

    @pytest.mark.parametrize(
        "name", ["with space.db", "q'uo\"te.db", "per%25cent.db", "ünï.db", "{brace}.db", "a#b.db"]
    )
    def test_odd_file_names(self, tmp_path: Path, name: str) -> None:
        opened = open_backend(f"sqlite:///{tmp_path / name}", create=True)
        assert opened.optuna.get_all_studies() == []
        opened.close()
        assert (tmp_path / unquote(name)).is_file()


class TestOtherMakers:
    """What another program, or another version of this one, left in the database."""

    def test_a_newer_schema(self, backend: Backend, database_url: str, cli: Cli) -> None:
        with backend.engine.begin() as connection:
            connection.execute(update(tables.schema).values(version=tables.SCHEMA_VERSION + 1))
        for command in (("status",), ("launch", "digits")):
            line = cli(*command, "--storage", database_url, fails=True).refused()
            newer, known = tables.SCHEMA_VERSION + 1, tables.SCHEMA_VERSION
            assert f"schema version {newer}, this program knows {known}: update affinity-search" in line

    def test_a_newer_optuna(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        with sqlite3.connect(str(sqlite.url.database)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
        connection.close()
        line = cli("status", "--storage", sqlite_url, fails=True).refused()
        assert "newer Optuna" in line

    def test_a_study_that_plain_optuna_made(self, backend: Backend, database_url: str, cli: Cli) -> None:
        theirs = optuna.create_study(study_name="digits", storage=backend.optuna)
        theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        for command in ("launch", "status", "export"):
            line = cli(command, "digits", "--storage", database_url, fails=True).refused()
            assert "did not make; choose another name with --name" in line
        assert len(optuna.load_study(study_name="digits", storage=backend.optuna).trials) == 1

    def test_an_empty_study_that_maximises_is_not_taken_over(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        optuna.create_study(study_name="digits", storage=sqlite.optuna, direction="maximize")
        assert "did not make" in cli("launch", "digits", "--storage", sqlite_url, fails=True).refused()


class TestPostgres:
    """A real server's refusals."""

    def test_a_wrong_password(self, cli: Cli, postgres: Server) -> None:
        ran = cli("status", "--storage", postgres.url("postgres", SECRETIVE, SECRET), fails=True)
        assert f"refused user '{SECRETIVE}' or its password" in ran.refused()
        assert shows_no_secret(ran)

    def test_a_wrong_password_in_the_query(self, cli: Cli, postgres: Server) -> None:
        url = f"{postgres.url('postgres', SECRETIVE)}?password={ENCODED}"
        ran = cli("launch", "digits", "--storage", url, fails=True)
        assert f"refused user '{SECRETIVE}' or its password" in ran.refused()
        assert shows_no_secret(ran)

    def test_no_password(self, cli: Cli, postgres: Server) -> None:
        ran = cli("status", "--storage", postgres.url("postgres", SECRETIVE), fails=True)
        assert f"wants a password for user '{SECRETIVE}'" in ran.refused()

    def test_the_right_password_with_every_odd_character(self, cli: Cli, postgres: Server) -> None:
        url = postgres.url(postgres.fresh_database(SECRETIVE), SECRETIVE, PASSWORD)
        open_backend(url, create=True).close()
        ran = cli("status", "nothing", "--storage", url, fails=True)
        assert "no study 'nothing' in postgresql://secretive:***@127.0.0.1" in ran.refused()
        assert shows_no_secret(ran)

    def test_a_database_that_is_not_there(self, cli: Cli, postgres: Server) -> None:
        assert "no such database" in cli("status", "--storage", postgres.url("nonesuch"), fails=True).refused()

    def test_an_empty_database_read(self, cli: Cli, postgres: Server) -> None:
        line = cli("status", "--storage", postgres.url(postgres.fresh_database()), fails=True).refused()
        assert "holds no studies of affinity-search" in line

    def test_no_right_to_create_tables(self, cli: Cli, postgres: Server) -> None:
        url = postgres.url(postgres.fresh_database(), SECRETIVE, PASSWORD)
        ran = cli("launch", "digits", "--storage", url, fails=True)
        assert f"user '{SECRETIVE}' may not create tables" in ran.refused()
        assert shows_no_secret(ran)

    def test_an_option_that_the_driver_does_not_know(self, cli: Cli, postgres: Server) -> None:
        ran = cli("status", "--storage", f"{postgres.url('postgres')}?colour=red&password={ENCODED}", fails=True)
        assert "colour" in ran.refused()
        assert shows_no_secret(ran)


def test_nothing_listens(cli: Cli) -> None:
    port = _free_port()
    ran = cli("status", "--storage", f"postgresql://u:{ENCODED}@127.0.0.1:{port}/x", fails=True)
    assert f"nothing listens at 127.0.0.1:{port}" in ran.refused()
    assert shows_no_secret(ran)


def test_a_host_that_is_not_there(cli: Cli) -> None:
    ran = cli("status", "--storage", f"postgresql://u:{ENCODED}@no-such-host.invalid/x", fails=True)
    assert "'no-such-host.invalid' cannot be resolved" in ran.refused()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("database is locked", "has been locked by another program"),
        ("attempt to write a readonly database", "check the permissions"),
        ("disk I/O error", "cannot be opened: disk I/O error"),
    ],
)
def test_sqlite_failures_that_are_hard_to_bring_about(line: str, said: str) -> None:
    error = explain(make_url("sqlite:///x.db"), OperationalError("SELECT 1", None, sqlite3.OperationalError(line)))
    assert isinstance(error, StorageError)
    assert said in str(error)


def test_a_secret_in_the_driver_s_own_words_is_removed() -> None:
    url = make_url(f"postgresql://u:{ENCODED}@h/d")
    driver = RuntimeError(f'bad conninfo "password={SECRET} host=h", or percent-encoded {ENCODED}')
    said = str(explain(url, OperationalError("", None, driver)))
    assert SECRET not in said
    assert ENCODED not in said


def test_a_failure_in_the_middle_shows_no_parameters() -> None:
    wrapped = RuntimeError("Optuna says something")
    wrapped.__cause__ = OperationalError("INSERT", {"x": SECRET}, sqlite3.OperationalError("disk full\nmore"))
    assert explain_late(wrapped) == "the storage failed: disk full; is the database still running and writable?"
    assert explain_late(ValueError("a bug")) is None
