"""Reads storage URLs, in the same way for every command, and shows them without secrets."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from affinity_search.storage.errors import StorageError

SECRET_QUERY_KEYS = frozenset({"password", "passfile", "sslpassword", "sslkey"})
USE = "use sqlite:///FILE.db or postgresql://USER@HOST:5432/DATABASE"

# We choose the driver. People copy URLs with other drivers; these mean the same.
DRIVERS = {
    "sqlite": {"pysqlite"},
    "postgresql": {"psycopg", "psycopg2", "psycopg2cffi", "psycopg_async", "asyncpg", "pg8000"},
}
OURS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
# psycopg takes these options only from Python code: a URL cannot hold their values.
NO_OPTIONS = ("autocommit", "context", "row_factory", "cursor_factory")
# What SQLite itself would do without being asked to.
USUAL_OPTIONS = {"uri": None, "mode": ("rw", "rwc"), "cache": ("private",)}


def parse_url(url: str) -> URL:
    """Read a storage URL; only SQLite and PostgreSQL are supported.

    Raises:
        StorageError: a bare path (the message has the URL to use), an unknown kind of database, a wrong option, or no
        URL.
    """
    text = cleaned(url, "the storage URL")
    found = re.match(r"(\w+)(?:\+(\w+))?://", text, re.ASCII)
    if found is None:
        raise _no_url(text)
    kind, driver = found[1].lower(), (found[2] or "").lower()
    kind = "postgresql" if kind == "postgres" else kind
    if kind not in DRIVERS:
        raise StorageError(f"storage of kind {kind!r} is not supported; {USE}")
    if driver and driver not in DRIVERS[kind]:
        raise StorageError(f"the driver {driver!r} of the storage URL is not known here; write {kind}:// without one")
    rest = text[found.end() :]
    try:
        parsed = make_url(f"{OURS[kind]}://{rest}")
    except (ArgumentError, ValueError):
        raise _unreadable(kind) from None
    return _sqlite(parsed, rest) if kind == "sqlite" else _postgresql(parsed)


def _no_url(text: str) -> StorageError:
    if re.search(r"@|=|://", text) or re.match(r"(postgres|mysql)\w*:", text):  # it may hold a password
        return _unreadable("")
    path = re.sub(r"^sqlite:/*", "", text) or "affinity-search.db"
    what = "a path, not a storage URL" if text in (path, "") else "no storage URL"
    return StorageError(f"{text!r} is {what}; use {shlex.quote(sqlite_url(path))}")


def sqlite_url(path: str | Path) -> str:
    """The URL of a SQLite file."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def _unreadable(kind: str) -> StorageError:
    which = f"starting with {kind!r}:// " if kind else ""
    return StorageError(
        f"the storage URL {which}cannot be read (the rest is not shown, because it may hold a "
        "password); use sqlite:///FILE.db or postgresql://USER:PASSWORD@HOST:5432/DATABASE, with special "
        "characters of the password percent-encoded"
    )


def _sqlite(url: URL, rest: str) -> URL:
    if url.username or url.password:
        raise _unreadable("sqlite")
    if url.host:
        raise StorageError(f"{rest!r} follows two slashes: a SQLite URL has three; use {shlex.quote(sqlite_url(rest))}")
    query = dict(url.query)
    name = url.database or ""
    if name.startswith("file:"):  # SQLite's own way of writing it
        name = unquote(re.sub(r"^file:(//(localhost)?(?=/))?", "", name))
    if name in ("", ":memory:") or query.get("mode") == "memory":
        raise StorageError("an in-memory SQLite database cannot be shared by workers; use sqlite:///FILE.db")
    if CONTROL.search(name):
        raise StorageError(f"the name of the SQLite file, {name!r}, has a control character in it; name another file")
    plain = shlex.quote(sqlite_url(name))
    for key, value in query.items():
        usual = USUAL_OPTIONS.get(key, ())
        if usual is not None and value not in usual:
            raise StorageError(f"the option {key}={value} of the SQLite URL is not supported; use {plain}")
    return URL.create("sqlite", database=expanded(name))


def _postgresql(url: URL) -> URL:
    if any("@" in part for part in (url.host or "", url.database or "")):
        raise _unreadable(
            "postgresql"
        )  # an @ or / in the password was not encoded, so a part of the password stands elsewhere
    for key in NO_OPTIONS:
        if key in url.query:
            raise StorageError(
                f"the option {key!r} of the storage URL is for Python code, not for PostgreSQL; leave it out"
            )
    prepare_threshold(url)
    return url


def prepare_threshold(url: URL) -> dict[str, int | None]:
    """The driver's option of that name, if the URL has it, as the driver wants it.

    0 and none turn prepared statements off; a pooler of transactions may need that. For this driver 0 would mean to
    prepare every statement, but for other drivers it means never.
    """
    given = url.query.get("prepare_threshold")
    if given is None:
        return {}
    if not isinstance(given, str) or not re.fullmatch(r"\d{1,9}|none", given.lower()):
        raise StorageError(f"the option prepare_threshold of the storage URL is {given!r}; allowed: a number, or none")
    return {"prepare_threshold": None if given.lower() == "none" else int(given) or None}


def redact(url: URL) -> str:
    """The URL with all passwords replaced, so that it can be shown."""
    # People know the URL without the driver.
    shown = url.set(
        drivername=url.get_backend_name(),
        query={key: "***" if key in SECRET_QUERY_KEYS else value for key, value in url.query.items()},
    )
    return shown.render_as_string(hide_password=True)


def secrets_of(url: URL) -> list[str]:
    """Every part of the URL that may not be shown."""
    # A key that is given twice has a tuple of values.
    in_query = [values for key, values in url.query.items() if key in SECRET_QUERY_KEYS]
    several = [value for values in in_query for value in ([values] if isinstance(values, str) else values)]
    return [str(secret) for secret in (url.password, *several) if secret]


def is_sqlite(url: URL) -> bool:
    """Whether the URL names a SQLite file."""
    return url.get_backend_name() == "sqlite"


def sqlite_path(url: URL) -> Path:
    """The file that the URL leads to, after symbolic links: so a link has the same lock and folder as its file.

    Raises:
        StorageError: symbolic links lead in a circle, or the path is too long.
    """
    try:
        return Path(str(url.database)).resolve()
    except (OSError, RuntimeError) as error:
        raise StorageError(f"{url.database} leads to no file ({error}); name another with --storage") from error


CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def cleaned(text: str, what: str) -> str:
    """The text without the blanks, line breaks and quotes that a .env file leaves around a value.

    Raises:
        StorageError: a line break or another control character is left inside. The value itself, which may hold a
            password, is not shown.
    """
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1].strip()
    if found := CONTROL.search(text):
        raise StorageError(f"{what} has the control character {found[0]!r} at position {found.start()}; take it out")
    return text


def expanded(path: str) -> str:
    """The path with the home folder for a leading ~ or ~USER. A shell keeps the ~ within quotes and after `///`.

    Raises:
        StorageError: there is no such home.
    """
    if not path.startswith("~"):
        return path  # as it was written: Path would change it
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        if "/" not in path and path != "~":
            return path  # a file name that begins with ~
        home = path.split("/")[0]
        raise StorageError(f"{home} of {path!r} is no known home folder; write the whole path") from None
