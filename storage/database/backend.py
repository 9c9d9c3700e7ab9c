"""URL → an open database: engine options, creation under a lock, and one clear sentence for every failure."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import filelock
import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Float,
    create_engine,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from affinity_search.storage.database import schema, tables
from affinity_search.storage.database.failures import explain
from affinity_search.storage.database.optuna_storage.drafts import drafting_storage
from affinity_search.storage.database.optuna_storage.patient import patient_storage, with_cache
from affinity_search.storage.database.optuna_storage.rdb import BatchingRDBStorage
from affinity_search.storage.database.patience import LOCK_WAIT_S, Patience
from affinity_search.storage.database.sqlite.connections import ReadingConnection, make_file
from affinity_search.storage.database.sqlite.presence import Presence, WritersPresence
from affinity_search.storage.errors import NoDatabaseError, StorageError
from affinity_search.storage.urls import is_sqlite, parse_url, prepare_threshold, redact, sqlite_path

T = TypeVar("T")

DRIVER_ERRORS = (SQLAlchemyError, sqlite3.Error)

CREATION_TIMEOUT_S = 120.0
# Any 64-bit number, but the same in every version of this program.
POSTGRES_LOCK_KEY = 0x0AFF1217
CONNECT_ARGS = {
    "connect_timeout": 10,
    "application_name": "affinity-search",
    # A server that lost its machine sends nothing. Give up such a connection after half a minute.
    "keepalives_idle": 30,
    "tcp_user_timeout": 30000,
}


@dataclass(frozen=True)
class Backend:
    """An open database: our engine, Optuna's storage, and the URL they share.

    With `patience`, as workers have it, both kinds of request wait for a database that is away.
    """

    url: URL
    engine: Engine
    rdb: RDBStorage
    presence: Presence | None = None  # of a SQLite file
    patience: Patience | None = None

    @property
    def optuna(self) -> BaseStorage:
        """For `optuna.load_study` and the like."""
        cached = with_cache(self.rdb)
        return drafting_storage(cached if self.patience is None else patient_storage(cached, self.patience))

    def transaction(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in one transaction. With patience it may run twice: if the first answer was lost."""

        def once() -> T:
            with self.engine.begin() as connection:
                return work(connection)

        return once() if self.patience is None else self.patience.call(once)

    @property
    def secret_url(self) -> str:
        """The URL with its password. Only for the environment of our own workers."""
        return self.url.render_as_string(hide_password=False)

    def __str__(self) -> str:
        return redact(self.url)

    def now(self) -> ColumnElement[float]:
        """SQL for the database's own clock, in seconds since 1970. Machines' clocks differ; this one is the same for
        all.
        """
        if self.engine.dialect.name == "sqlite":
            return literal_column("((julianday('now') - 2440587.5) * 86400.0)", Float)
        return func.extract("epoch", func.clock_timestamp()).cast(Float)

    def time(self) -> float:
        """The database's clock, read once."""
        return self.transaction(lambda connection: float(connection.execute(select(self.now())).scalar_one()))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the database's creation lock. Only its holder creates or changes tables or studies."""
        self.check()
        with _exclusive(self.url, self.engine):
            yield

    @property
    def vanished(self) -> bool:
        """Whether any thread has found that the SQLite file is gone. It does not look again."""
        return self.presence is not None and self.presence.vanished

    def check(self) -> None:
        """Check that a SQLite file is still there. Every request does so too.

        Raises:
            VanishedError: it is not.
        """
        if self.presence:
            self.presence.check()

    def prove_writable(self) -> None:
        """Make a write that changes nothing. Raises the database's error if it takes no writes now."""
        studies = tables.studies
        nobody = update(studies).where(studies.c.token == "").values(created_at=studies.c.created_at)
        self.transaction(lambda connection: connection.execute(nobody))

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()
        self.rdb.engine.dispose()
        if self.presence:
            self.presence.close()


def open_backend(url: str, *, create: bool, read_only: bool = False, into_existing: bool = False) -> Backend:
    """Open the database at `url`, creating and migrating its tables under a lock when `create` is true.

    With `read_only` the database itself refuses all changes over this backend's connections. If there are tables of
    other programs, nothing is created, unless `into_existing` is true. A refused call changes nothing.

    Raises:
        StorageError: the URL is wrong, its driver is missing, the server refuses, the database does not exist (and
        `create` is false), or a newer version made its tables. The message never contains the password.
    """
    parsed = parse_url(url)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if is_sqlite(parsed):
            return _open_file(parsed, create, read_only, into_existing)
        return _open_server(parsed, create, read_only, into_existing)
    except StorageError:
        raise
    except (*DRIVER_ERRORS, ImportError, OSError, RuntimeError, ValueError, filelock.Timeout) as error:
        raise explain(parsed, error) from error


def _open_file(url: URL, create: bool, read_only: bool, into_existing: bool) -> Backend:
    with _looking(url) as looking:
        _check(url, looking, create, into_existing)
    path = Path(str(url.database)).absolute()
    if create:
        make_file(path)  # and nobody does later: whoever finds it gone has lost it
    presence = Presence(path) if read_only else WritersPresence(path)
    try:
        options = {"connect_args": {"timeout": LOCK_WAIT_S, "factory": presence.connect}}
        engine = create_engine(url, **options)
        presence.watch(engine)
        return _opened(url, engine, options, create, presence)
    except BaseException:
        presence.close()
        raise


def _open_server(url: URL, create: bool, read_only: bool, into_existing: bool) -> Backend:
    options = _server_options(url, read_only)
    engine = create_engine(url, **options)
    _check(url, engine, create, into_existing)
    return _opened(url, engine, options, create)


def _opened(
    url: URL, engine: Engine, options: dict[str, Any], create: bool, presence: Presence | None = None
) -> Backend:
    if create:
        _create(url, engine, options)
    storage = _optuna_storage(url, options, skip_table_creation=True)
    if presence:
        presence.watch(storage.engine)
    storage.require_fitting_tables()
    return Backend(url, engine, storage, presence)


@contextmanager
def _looking(url: URL) -> Iterator[Engine | None]:
    """For a look before anything is written; None where no SQLite file is.

    Opening a SQLite file to write changes it at once.
    """
    _check_sqlite_folder(url)
    if not sqlite_path(url).exists():
        yield None
        return
    looking = create_engine(url, connect_args={"timeout": LOCK_WAIT_S, "factory": ReadingConnection})
    try:
        yield looking
    finally:
        looking.dispose()


def _check(url: URL, looking: Engine | None, create: bool, into_existing: bool) -> None:
    if not create:
        _require_tables(url, looking)
    elif looking:
        schema.refuse_others(looking, redact(url), into_existing=into_existing)


def _create(url: URL, engine: Engine, options: dict[str, Any]) -> None:
    if schema.is_current(engine):
        return
    with _exclusive(url, engine):
        if schema.is_current(engine):
            return
        schema.require_unicode(engine, redact(url))
        schema.mark(engine)
        storage = _optuna_storage(url, options, skip_table_creation=False)
        if storage.get_current_version() != storage.get_head_version():
            storage.upgrade()
        storage.engine.dispose()
        schema.bring_up_to_date(engine)


def _server_options(url: URL, read_only: bool) -> dict[str, Any]:
    # A worker needs one connection for writes and one for reads. Many workers share one server.
    return {
        # False is not the default: it would ask for read-write even if the administrator set read-only.
        "execution_options": {"postgresql_readonly": True} if read_only else {},
        "pool_pre_ping": True,
        "pool_size": 2,
        "max_overflow": 2,
        # The URL's options go before our defaults, except for the encoding.
        "connect_args": {key: value for key, value in CONNECT_ARGS.items() if key not in url.query}
        | {"client_encoding": "utf8"}
        | prepare_threshold(url),
    }


def _optuna_storage(url: URL, options: dict[str, Any], *, skip_table_creation: bool) -> BatchingRDBStorage:
    secret = url.render_as_string(hide_password=False)
    # Optuna calls str.format on the URL, so braces in a password would raise KeyError.
    return BatchingRDBStorage(
        secret.replace("{", "{{").replace("}", "}}"),
        engine_kwargs=options,
        skip_table_creation=skip_table_creation,
        skip_compatibility_check=True,
    )


@contextmanager
def _exclusive(url: URL, engine: Engine) -> Iterator[None]:
    if is_sqlite(url):
        # The lock is a file beside the database: Optuna writes through its own connections while the lock is held. The
        # file is empty.
        try:
            lock = filelock.FileLock(f"{sqlite_path(url)}.lock", timeout=CREATION_TIMEOUT_S).acquire()
        except filelock.Timeout as error:
            raise explain(url, error) from error
        with lock:
            yield
        return
    # The lock ends with its transaction. Behind a pooler of transactions, another client would get a session's lock.
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{int(CREATION_TIMEOUT_S)}s'"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({POSTGRES_LOCK_KEY})"))
        yield


def _check_sqlite_folder(url: URL) -> None:
    folder = sqlite_path(url).parent
    if not folder.is_dir():
        command = f"mkdir -p {shlex.quote(str(folder))}"
        raise StorageError(f"the folder {folder} of {redact(url)} does not exist; create it with: {command}")


def _require_tables(url: URL, looking: Engine | None) -> None:
    """Refuse to open a missing SQLite file to read: SQLite would leave an empty one behind."""
    if looking is None:
        raise NoDatabaseError(
            f"no database at {redact(url)}; `affinity-search launch STUDY` creates it, "
            "or name another with --storage or AFFINITY_SEARCH_STORAGE"
        )
    schema.require(looking, redact(url))
