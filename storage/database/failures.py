"""Errors of the database or its driver, as one sentence with the next step and without any secret."""

from __future__ import annotations

import os
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, quote_plus

import filelock
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, NoSuchModuleError

from affinity_search.storage.errors import StorageError
from affinity_search.storage.urls import is_sqlite, redact, secrets_of, sqlite_path

INSTALL = "pip install 'affinity-search[postgres]'"
DAMAGED = ("malformed", "not a database", "disk image")
SQLITE_MAGIC = b"SQLite format 3\x00"
KINDS = ("TABLE", "SEQUENCE", "SCHEMA", "DATABASE")
VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE")


def explain(url: URL, error: BaseException) -> StorageError:
    """Turn a failure to open `url` into one sentence with the next step."""
    shown, line = redact(url), _shown_line(error, url)
    if isinstance(error, (ImportError, NoSuchModuleError)):
        return StorageError(f"{shown} needs the driver psycopg, {_missing_driver(line)}")
    if isinstance(error, filelock.Timeout):
        return StorageError(
            f"another process has been creating {shown} for too long; stop it if it hangs, then try again"
        )
    if isinstance(error, RuntimeError) and "table schema" in line:
        return StorageError(f"{shown} was made by a newer Optuna: {line}")
    if is_sqlite(url):
        return StorageError(_sqlite_cause(shown, line, sqlite_path(url)))
    return StorageError(_postgres_cause(url, error, line))


def _shown_line(error: BaseException, url: URL) -> str:
    """The database's own first line, with every secret of the URL removed."""
    line = first_line(error)
    for secret in secrets_of(url):
        for written in (secret, quote(secret, safe=""), quote_plus(secret)):
            line = line.replace(written, "***")
    return line


def _missing_driver(line: str) -> str:
    if find_spec("psycopg") is None:
        return f"which is not installed; {INSTALL}"
    return f"which is installed but cannot be loaded ({line}); pip install --force-reinstall 'psycopg[binary]'"


def _sqlite_cause(shown: str, line: str, path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder; name a file in it, such as {shlex.quote(f'{shown}/affinity-search.db')}"
    if any(words in line for words in DAMAGED):
        return damaged(path, line) if _begins_as_sqlite(path) else _foreign(path)
    if "readonly" in line or "unable to open" in line or "Permission" in line:
        return f"{path} cannot be written ({line}); check the permissions of the file and its folder"
    if "locked" in line:
        return f"{path} has been locked by another program for over a minute; close that program"
    return f"{shown} cannot be opened: {line}"


def _foreign(path: Path) -> str:
    return f"{path} is not a SQLite database; name another file with --storage"


def _begins_as_sqlite(path: Path) -> bool:
    try:
        # The file stays open: closing it would end the locks of this process's connections to it.
        return os.pread(os.open(path, os.O_RDONLY), len(SQLITE_MAGIC), 0) == SQLITE_MAGIC
    except OSError:
        return False


def damaged(path: Path | str, line: str) -> str:
    """The message for a damaged SQLite file, with the command that saves what can be read."""
    rescued = str(Path(path).with_suffix(".rescued.db"))
    # `.recover` finds more, but many builds of sqlite3 lack it. A dump that met damage ends with ROLLBACK.
    dump = f"sqlite3 -cmd 'PRAGMA writable_schema=ON' {shlex.quote(str(path))} .dump"
    command = f"{dump} | sed 's/^ROLLBACK.*/COMMIT;/' | sqlite3 {shlex.quote(rescued)}"
    return (
        f"{path} is a SQLite database that is damaged or cut short ({line}); take a backup in its place, or save what "
        f"can still be read with: {command}"
    )


def _postgres_cause(url: URL, error: BaseException, line: str) -> str:
    where = f"{url.host or 'localhost'}:{url.port or 5432}"
    causes = {
        "password authentication failed": f"PostgreSQL at {where} refused user {url.username!r} or its password",
        "no password supplied": f"PostgreSQL at {where} wants a password for user {url.username!r}",
        "local user with ID": "the storage URL names no user, and this process's user has no name; write USER@HOST",
        "does not exist": f"PostgreSQL at {where} has no such database or user; create it with createdb or createuser",
        "refused": f"nothing listens at {where}; is PostgreSQL running there?",
        "resolve": f"the host name {url.host!r} cannot be resolved; check its spelling",
        "timeout": f"PostgreSQL at {where} did not answer in time; check the address and the firewall",
        "permission denied": _missing_right(error, line, f'"{url.username}"' if url.username else None),
        "no schema has been selected": f"user {url.username!r} may use no schema of {url.database!r}; as its owner: "
        f'GRANT USAGE, CREATE ON SCHEMA public TO "{url.username}"',
        "invalid connection option": "the storage URL has an option that PostgreSQL does not know; leave it out",
    }
    cause = next((cause for key, cause in causes.items() if key in line), f"PostgreSQL at {where} failed")
    return f"{cause} ({redact(url)}: {line})"


def _missing_right(error: BaseException, line: str, role: str | None) -> str:
    """The privilege to ask for: what the statement tried, on the object that the database names."""
    found = re.search(r"permission denied for (\w+) \"?([^\"\s]+)", line)
    who = f"user {role}" if role else "the user of the storage URL"
    if found is None:
        return f"{who} lacks a privilege; ask the owner of the database for it"
    kind, name = found[1].upper(), found[2]
    right = _right(error, kind)
    grant = f"GRANT {right} ON {kind if kind in KINDS else 'TABLE'} {name} TO {role or 'ROLE'}"
    every = f"; all at once: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role or 'ROLE'}"
    return f"{who} lacks {right} on {kind.lower()} {name}; as its owner: {grant}{every if kind == 'TABLE' else ''}"


def _right(error: BaseException, kind: str) -> str:
    failed = _driver_error(error)
    verb = str(failed.statement or "").split(None, 1)[0].upper() if failed is not None and failed.statement else ""
    if kind == "SEQUENCE":
        return "USAGE"
    if kind == "SCHEMA":
        return "CREATE" if verb == "CREATE" else "USAGE"
    return verb if verb in VERBS else "SELECT"


def explain_late(error: BaseException) -> str | None:
    """One sentence for a database that failed during a command. None for other errors."""
    if _driver_error(error) is None:
        return None
    line = first_line(error)
    if "permission denied for" in line:
        return f"the storage refused a request: {_missing_right(error, line, None)}"
    if "readonly" in line:
        return f"the database cannot be written ({line}); check the permissions of its file and folder"
    if "malformed" in line:
        return f"the storage failed: {damaged('FILE', line)} (FILE: the file of the storage URL)"
    if "has no equivalent in encoding" in line:
        return f"the storage failed: {line}; use a database that was made with createdb --encoding=UTF8"
    if "prepared statement" in line:
        return f"the storage failed: {line}; behind a pooler of connections add ?prepare_threshold=none to its URL"
    return f"the storage failed: {line}; is the database still running and writable?"


def first_line(error: BaseException | None) -> str:
    """The driver's first line, without the statement and parameters that SQLAlchemy appends."""
    found = _driver_error(error)
    original = error if found is None else found.orig
    return (str(original).strip().splitlines() or [type(original).__name__])[0]


def _driver_error(error: BaseException | None) -> DBAPIError | None:
    """The database's error behind an error of Optuna or of ours."""
    while error is not None and not isinstance(error, DBAPIError):
        error = error.__cause__ or error.__context__
    return error
