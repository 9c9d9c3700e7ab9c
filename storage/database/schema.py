"""Creates our tables, finds their version, and brings them up to date."""

from __future__ import annotations

from optuna.storages._rdb.models import BaseModel
from sqlalchemy import Engine, func, inspect, select, text
from sqlalchemy.schema import CreateColumn

from affinity_search.storage.database import tables
from affinity_search.storage.errors import NoDatabaseError, OutdatedError, StorageError

OPTUNAS_TABLES = frozenset(BaseModel.metadata.tables)
SHOWN_TABLES = 3


def is_current(engine: Engine) -> bool:
    """Whether the tables have this program's version. False for an older version, and if there are none.

    Raises:
        StorageError: they are of a newer version.
    """
    version = _version(engine)
    if version is not None and version > tables.SCHEMA_VERSION:
        raise StorageError(
            f"the database has schema version {version}, this program knows {tables.SCHEMA_VERSION}: "
            "update affinity-search on this machine"
        )
    return version == tables.SCHEMA_VERSION


def refuse_others(engine: Engine, shown: str, *, into_existing: bool) -> None:
    """For commands that create: refuse a database that has only other programs' tables, unless the person asks for it.

    `tables.schema` is the first table that is made. A database with it is ours, even if its creation was cut off.

    Raises:
        StorageError: other programs' tables are there.
    """
    there = sorted(inspect(engine).get_table_names())
    if not there or tables.schema.name in there:
        return
    optunas = "alembic_version" in there and "trials" in there
    if not optunas and (taken := [name for name in there if name in OPTUNAS_TABLES]):
        raise StorageError(f"{shown} has a table {taken[0]!r} of another program; use another database")
    if into_existing:
        return
    what = "studies of Optuna" if optunas else f"another program's tables ({_some(there)})"
    raise StorageError(
        f"{shown} holds {what} and no studies of affinity-search; name a new database with --storage, or add "
        f"--into-existing to put affinity-search's tables beside them"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN_TABLES]) + (", …" if len(names) > SHOWN_TABLES else "")


def require_unicode(engine: Engine, shown: str) -> None:
    """Refuse to create in a PostgreSQL database that cannot store every name.

    Raises:
        StorageError: its encoding is not UTF-8.
    """
    if engine.dialect.name != "postgresql":
        return
    with engine.connect() as connection:
        encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise StorageError(
            f"{shown} stores text as {encoding}, which lacks letters such as λ; make a database with: createdb "
            "--encoding=UTF8 --template=template0 NAME"
        )


def mark(engine: Engine) -> None:
    """Make the first table: it marks a database as ours."""
    tables.schema.create(engine, checkfirst=True)


def require(engine: Engine, shown: str) -> None:
    """For commands that create nothing. `shown` is the database's name in messages.

    Raises:
        StorageError: the tables are older or newer. NoDatabaseError: there are none.
    """
    if is_current(engine):
        return
    version = _version(engine)
    if version is None:
        raise NoDatabaseError(f"{shown} holds no studies of affinity-search; start one with `affinity-search launch`")
    raise OutdatedError(
        f"{shown} has schema version {version} of an older affinity-search, this program knows "
        f"{tables.SCHEMA_VERSION}: `affinity-search launch STUDY` brings it up to date"
    )


def bring_up_to_date(engine: Engine) -> None:
    """Create what is missing. The caller holds the creation lock.

    The version is written last, so a version means that the tables are complete. New versions only add columns that may
    be null.
    """
    tables.metadata.create_all(engine)
    found = inspect(engine)
    with engine.begin() as connection:
        for table in tables.metadata.sorted_tables:
            present = {column["name"] for column in found.get_columns(table.name)}
            for column in table.columns:
                if column.name not in present:
                    added = CreateColumn(column).compile(dialect=engine.dialect)
                    connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {added}")
        connection.execute(tables.schema.delete())
        connection.execute(tables.schema.insert().values(version=tables.SCHEMA_VERSION))


def _version(engine: Engine) -> int | None:
    if not inspect(engine).has_table(tables.schema.name):
        return None
    with engine.connect() as connection:
        version: int | None = connection.execute(select(func.max(tables.schema.c.version))).scalar_one()
        return version
