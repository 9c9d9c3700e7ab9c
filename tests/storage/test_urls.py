"""Storage URLs: every mistake and failure is one line with the next step, and no password is ever in it."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, unquote

import optuna
import pytest
import typer
from conftest import Cli, Ran
from making import make
from postgres_server import PASSWORD, SECRETIVE, Server, _free_port
from sqlalchemy import text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from affinity_search.search.cli.options import home_path
from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.database.failures import explain, explain_late
from affinity_search.storage.errors import StorageError
from affinity_search.storage.study import study_names
from affinity_search.storage.urls import parse_url, prepare_threshold, redact

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
        (f"postgresql+nonsense://u:{ENCODED}@localhost/x", "the driver 'nonsense' of the storage URL is not known"),
        ("my studies.db", "use 'sqlite:///my studies.db'"),
        ("50%?.db", "use sqlite:///50%25%3F.db"),
        ("sqlite:/x.db", "is no storage URL; use sqlite:///x.db"),
        ("sqlite://x.db", "a SQLite URL has three; use sqlite:///x.db"),
        ("sqlite:////no/my studies/x.db", "mkdir -p '/no/my studies'"),
        ("sqlite:///~nobody-of-this-name/x.db", "is no known home folder"),
        ("sqlite:///x.db\ny", "the storage URL has the control character '\\n' at position 14"),
        ("sqlite:///x%0Ay.db", "control character"),
        ("sqlite:///file:x.db?mode=ro&uri=true", "the option mode=ro of the SQLite URL is not supported"),
        ("sqlite:///file::memory:?uri=true", "in-memory SQLite database cannot be shared"),
        ("sqlite:///x.db?timeout=5", "the option timeout=5 of the SQLite URL is not supported; use sqlite:///x.db"),
        (f"host=localhost user=u password={SECRET}", "cannot be read"),
        (f"u:{SECRET}@localhost/x", "cannot be read"),
        (f"postgres:/u:{SECRET}@localhost/x", "cannot be read"),
        (f"u:{SECRET}://localhost/x", "cannot be read"),
        (
            f"postgresql://u:{ENCODED}@h/x?autocommit=true",
            "the option 'autocommit' of the storage URL is for Python code",
        ),
        (f"postgresql://u:{ENCODED}@h/x?prepare_threshold=few", "is 'few'; allowed: a number, or none"),
    ],
)
@pytest.mark.parametrize("command", ["launch", "status"])
def test_urls_that_cannot_be_meant(cli: Cli, command: str, url: str, said: str) -> None:
    ran = cli(command, "digits", "--storage", url, fails=True)
    assert said in ran.refused()
    assert shows_no_secret(ran)


def test_the_short_names_of_postgresql_mean_the_driver_that_we_ship() -> None:
    for scheme in (
        "postgres",
        "postgresql",
        "PostgreSQL",
        "postgresql+psycopg",
        "postgresql+psycopg2",
        "postgres+asyncpg",
    ):
        assert parse_url(f"{scheme}://u@h/d").drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///a b.db\n",
        " 'sqlite:///a b.db' ",
        '"sqlite:///a b.db"\r\n',
        "SQLite+pysqlite:///a b.db",
        "sqlite:///file:a b.db?uri=true",
        "sqlite:///file:a%2520b.db?mode=rwc&uri=true",
        "sqlite:///file:a b.db?uri=True&cache=private",
    ],
)
def test_other_ways_to_write_the_same_file(url: str) -> None:
    assert parse_url(url) == make_url("sqlite:///a b.db")


def test_folders_of_the_environment_are_cleaned_alike() -> None:
    assert home_path(" '/a b'\n") == Path("/a b")
    with pytest.raises(typer.BadParameter, match="control character"):
        home_path("/a\nb")


def test_file_uris_with_a_whole_path() -> None:
    for url in ("sqlite:////a/b.db", "sqlite:///file:/a/b.db", "sqlite:///file:///a/b.db?uri=true"):
        assert parse_url(url).database == "/a/b.db"


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home of me")
    assert parse_url("sqlite:///~/studies.db").database == "/home of me/studies.db"
    assert parse_url("sqlite:///~studies.db").database == "~studies.db"


@pytest.mark.parametrize(("given", "meant"), [("0", None), ("none", None), ("7", 7)])
def test_options_of_a_url_have_their_types(given: str, meant: int | None) -> None:
    url = make_url(f"postgresql://u@h/d?prepare_threshold={given}&connect_timeout=3")
    assert prepare_threshold(parse_url(str(url))) == {"prepare_threshold": meant}


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
    monkeypatch.setattr("affinity_search.storage.database.failures.find_spec", lambda name: "there")
    ran = cli("status", "--storage", f"postgres://u:{ENCODED}@localhost/x", fails=True)
    said = ran.refused()
    assert "psycopg, which is installed but cannot be loaded" in said
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

    def test_a_file_that_was_cut_short_is_told_from_a_foreign_one(self, cli: Cli, sqlite: Backend) -> None:
        path = Path(str(sqlite.url.database))
        make(sqlite)
        sqlite.close()
        for length in (path.stat().st_size // 2, 100):
            with path.open("r+b") as file:
                file.truncate(length)
            for command in (("status",), ("export", "tiny"), ("launch", "digits")):
                said = cli(*command, "--storage", f"sqlite:///{path}", fails=True).refused()
                assert f"{path} is a SQLite database that is damaged or cut short" in said
                assert (
                    f"{path} .dump | sed 's/^ROLLBACK.*/COMMIT;/' | sqlite3 {path.with_suffix('.rescued.db')}" in said
                )
            assert path.stat().st_size == length

    @pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the command of the message needs sqlite3")
    def test_the_command_that_is_named_saves_what_can_be_read(self, sqlite: Backend, tmp_path: Path) -> None:
        path = Path(str(sqlite.url.database))
        make(sqlite)
        sqlite.close()
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 4096)
        with pytest.raises(StorageError) as refused:
            open_backend(f"sqlite:///{path}", create=False)
        command = str(refused.value).partition("can still be read with: ")[2]
        subprocess.run(command, shell=True, check=True, capture_output=True)
        rescued = open_backend(f"sqlite:///{path.with_suffix('.rescued.db')}", create=True)
        assert study_names(rescued) == ["tiny"]
        rescued.close()

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
        assert (
            f'lacks CREATE on schema public; as its owner: GRANT CREATE ON SCHEMA public TO "{SECRETIVE}"'
            in ran.refused()
        )
        assert shows_no_secret(ran)

    def test_the_encoding_is_ours_whatever_the_surroundings_say(
        self, postgres: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
        opened = open_backend(f"{postgres.url(postgres.fresh_database())}?client_encoding=LATIN2", create=True)
        for engine in (opened.engine, opened.rdb.engine):
            with engine.connect() as connection:
                assert connection.execute(text("SHOW client_encoding")).scalar_one() == "UTF8"
        opened.close()

    def test_options_of_the_url_reach_every_connection(self, postgres: Server) -> None:
        url = postgres.url(postgres.fresh_database())
        opened = open_backend(f"{url}?prepare_threshold=0&application_name=mine", create=True)
        for engine in (opened.engine, opened.rdb.engine):
            with engine.connect() as connection:
                assert connection.execute(text("SHOW application_name")).scalar_one() == "mine"
                assert connection.connection.dbapi_connection.prepare_threshold is None  # type: ignore[union-attr]
        opened.close()

    def test_the_creation_lock_is_a_transaction_s(self, postgres: Server) -> None:
        """A pooler of transactions gives each to another session, which a session's lock would outlive."""
        opened = open_backend(postgres.url(postgres.fresh_database()), create=True)
        held = (
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND "
            "pg_stat_activity.datname = current_database() AND xact_start IS NOT NULL AND state LIKE 'idle in trans%'"
        )
        for expected in (1, 0):
            with contextlib.ExitStack() as stack:
                if expected:
                    stack.enter_context(opened.exclusive())
                with opened.engine.connect() as connection:
                    assert connection.execute(text(held)).scalar_one() == expected
                    assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "0"
        opened.close()

    @pytest.mark.parametrize(
        ("granted", "command", "lacking"),
        [
            ("SELECT ON affinity_schema", ("status",), "SELECT on table"),
            (
                "SELECT ON ALL TABLES IN SCHEMA public",
                ("create", "tiny", "--trials", "9"),
                "GRANT SELECT, INSERT, UPDATE, DELETE",
            ),
            (
                None,
                ("status",),
                "as its owner: GRANT SELECT ON TABLE affinity_schema TO",
            ),
        ],
    )
    def test_a_role_is_told_the_right_that_it_lacks(
        self, cli: Cli, postgres: Server, granted: str | None, command: tuple[str, ...], lacking: str
    ) -> None:
        name = postgres.fresh_database()
        opened = open_backend(postgres.url(name), create=True)
        make(opened)
        opened.close()
        if granted:
            postgres.execute(f"GRANT {granted} TO {SECRETIVE}", name)
        ran = cli(*command, "--storage", postgres.url(name, SECRETIVE, PASSWORD), fails=True)
        assert lacking in ran.refused()
        assert "CREATE" not in ran.err
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
