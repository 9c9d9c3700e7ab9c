"""Storage URLs: reading them, showing them without their secrets, and saying what went wrong with them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, quote_plus

import filelock
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from storage.errors import StorageError

SECRET_QUERY_KEYS = frozenset({"password", "passfile", "sslpassword", "sslkey"})


def parse_url(url: str) -> URL:
    """Read a storage URL; only SQLite and PostgreSQL are supported.

    Raises:
        StorageError: a bare path (with the URL to use instead), an unknown kind of database, or no URL at all.
    """
    if "://" not in url:
        raise StorageError(f"{url!r} is a path, not a storage URL; use sqlite:///{url or 'affinity-search.db'}")
    try:
        parsed = make_url(re.sub(r"^postgres://", "postgresql://", url))
    except (ArgumentError, ValueError):
        raise _unreadable(url) from None
    if parsed.get_backend_name() != "sqlite" and any(
        "@" in part for part in (parsed.host or "", parsed.database or "")
    ):
        raise _unreadable(url)  # an @ or / of the password that was not encoded: the rest of it went astray
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StorageError(
            f"storage of kind {parsed.get_backend_name()!r} is not supported; "
            "use sqlite:///FILE.db or postgresql://USER@HOST:5432/DATABASE"
        )
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


def _unreadable(url: str) -> StorageError:
    scheme = url.split("://", 1)[0]
    return StorageError(
        f"the storage URL starting with {scheme!r}:// cannot be read (its rest is not shown: it may hold a "
        "password); use sqlite:///FILE.db or postgresql://USER:PASSWORD@HOST:5432/DATABASE, with special "
        "characters of the password percent-encoded"
    )


def redact(url: URL) -> str:
    """The URL as it may be shown: passwords replaced, wherever they stand."""
    # The driver is ours to choose: people know the URL without it.
    shown = url.set(
        drivername=url.get_backend_name(),
        query={key: "***" if key in SECRET_QUERY_KEYS else value for key, value in url.query.items()},
    )
    return shown.render_as_string(hide_password=True)


def _first_line(error: BaseException, url: URL) -> str:
    """The database's own first line, with every secret of the URL removed."""
    original = getattr(error, "orig", None) or error
    line = (str(original).strip().splitlines() or [type(error).__name__])[0]
    for secret in _secrets(url):
        for written in (secret, quote(secret, safe=""), quote_plus(secret)):
            line = line.replace(written, "***")
    return line


def _secrets(url: URL) -> list[str]:
    # A key that is given twice has a tuple of values.
    in_query = [values for key, values in url.query.items() if key in SECRET_QUERY_KEYS]
    several = [value for values in in_query for value in ([values] if isinstance(values, str) else values)]
    return [str(secret) for secret in (url.password, *several) if secret]


def is_sqlite(url: URL) -> bool:
    """Whether the URL names a SQLite file."""
    return url.get_backend_name() == "sqlite"


def explain(url: URL, error: BaseException) -> StorageError:
    """Turn a failure to open `url` into one sentence with the next step."""
    shown, line = redact(url), _first_line(error, url)
    if isinstance(error, (ImportError, NoSuchModuleError)):
        return StorageError(f"{shown} needs a driver that is missing; pip install 'affinity-search[postgres]'")
    if isinstance(error, filelock.Timeout):
        return StorageError(f"another process has been creating {shown} for too long; is one hanging?")
    if isinstance(error, RuntimeError) and "table schema" in line:
        return StorageError(f"{shown} was made by a newer Optuna: {line}")
    if is_sqlite(url):
        return _explain_sqlite(shown, line, Path(str(url.database)))
    return StorageError(f"{_postgres_cause(url, line)} ({shown}: {line})")


def _explain_sqlite(shown: str, line: str, path: Path) -> StorageError:
    if "not a database" in line or "malformed" in line:
        return StorageError(f"{path} is not a SQLite database; name another file, or move this one away")
    if "readonly" in line or "unable to open" in line or "Permission" in line:
        return StorageError(f"{path} cannot be written ({line}); check the permissions of the file and its folder")
    if "locked" in line:
        return StorageError(f"{path} has been locked by another program for over a minute; close that program")
    return StorageError(f"{shown} cannot be opened: {line}")


def _postgres_cause(url: URL, line: str) -> str:
    where = f"{url.host or 'localhost'}:{url.port or 5432}"
    causes = {
        "password authentication failed": f"PostgreSQL at {where} refused user {url.username!r} or its password",
        "no password supplied": f"PostgreSQL at {where} wants a password for user {url.username!r}",
        "does not exist": f"PostgreSQL at {where} has no such database or user; create it with createdb or createuser",
        "refused": f"nothing listens at {where}; is PostgreSQL running there?",
        "resolve": f"the host name {url.host!r} cannot be resolved; check its spelling",
        "timeout": f"PostgreSQL at {where} did not answer in time; check the address and the firewall",
        "permission denied": f"user {url.username!r} may not create tables in {url.database!r}; grant CREATE",
    }
    return next((cause for key, cause in causes.items() if key in line), f"PostgreSQL at {where} failed")


def explain_late(error: BaseException) -> str | None:
    """One sentence for a database that failed in the middle of a command; None if it is no such failure."""
    if _driver_error(error) is None:
        return None
    return f"the storage failed: {first_line(error)}; is the database still running and writable?"


def first_line(error: BaseException | None) -> str:
    """The driver's own first line; the statement and its parameters, which SQLAlchemy appends, stay out."""
    found = _driver_error(error)
    original = error if found is None else found.orig
    return (str(original).strip().splitlines() or [type(original).__name__])[0]


def _driver_error(error: BaseException | None) -> DBAPIError | None:
    """The database's error behind whatever Optuna or we made of it."""
    while error is not None and not isinstance(error, DBAPIError):
        error = error.__cause__ or error.__context__
    return error
