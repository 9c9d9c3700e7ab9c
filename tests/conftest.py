"""Databases, the command, and processes that run it with a fake objective."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import contender
import fake_objective
import pytest
from postgres_server import Server, Unavailable, postgres_server
from warm import ADDRESS, Warm, subprocess_but_warm, warm_process

from affinity_search.search import devices
from affinity_search.storage.database.backend import Backend, open_backend

HERE = Path(__file__).parent

# A shell that starts this suite in the background has SIGINT ignored, which every process below would inherit: the
# tests of Ctrl-C would then test nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)

# TEST_DEVICE=gpu:0: what trains in the tests' own processes does it there. `benchmarks/gpu_check` asks for it.
if other := os.environ.get("TEST_DEVICE"):
    _configure = devices.configure

    def _configure_other(device: str, threads: int | None = None, memory_mib: int | None = None) -> devices.Device:
        """The tests' usual device is another one; what they ask for to try it is what they ask for."""
        usual = (device, threads) == ("cpu", 2)
        return _configure(*((other,) if usual and other != "cpu" else (device, threads, memory_mib)))

    devices.configure = _configure_other

# The files that take the longest are begun first, or at the end one process waits for another's.
FIRST = "tpu_readiness", "ray", "fit", "worker", "launcher", "failures", "embed", "gpu_bench", "browser", "doctor_study"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--no-loadscope-reorder`, the order in which processes take up files."""
    ranks = {f"test_{name}.py": rank for rank, name in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(FIRST)))


@pytest.fixture(scope="session")
def _data_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data-home")


@pytest.fixture(autouse=True)
def _no_leaks(monkeypatch: pytest.MonkeyPatch, _data_home: Path) -> None:
    """Nobody's environment changes what a test sees."""
    for key in [key for key in os.environ if key.startswith(("AFFINITY_SEARCH_", "FAKE_", "PG"))]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_DATA_HOME", str(_data_home))  # checkpoints of studies in PostgreSQL


@pytest.fixture(scope="session")
def _server_or_reason() -> Iterator[Server | str]:
    try:
        with postgres_server() as server:
            yield server
    except Unavailable as reason:
        yield str(reason)


@pytest.fixture
def postgres(_server_or_reason: Server | str) -> Server:
    """The session's real PostgreSQL."""
    if isinstance(_server_or_reason, str):
        pytest.skip(_server_or_reason)
    return _server_or_reason


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh database of either kind: what uses it runs on both."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    server: Server = request.getfixturevalue("postgres")
    ready = "backend" in request.fixturenames
    name = server.fresh_database(template=request.getfixturevalue("_ready_database") if ready else "template1")
    yield server.url(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def _ready_database(_server_or_reason: Server) -> str:
    """A PostgreSQL database with our tables, to be copied: making them anew takes a third of a second."""
    name = _server_or_reason.fresh_database()
    open_backend(_server_or_reason.url(name), create=True).close()
    return name


@pytest.fixture(scope="session")
def _ready_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for SQLite."""
    path = tmp_path_factory.mktemp("ready") / "ready.db"
    open_backend(f"sqlite:///{path}", create=True).close()
    return path


@pytest.fixture
def backend(database_url: str, _ready_file: Path) -> Iterator[Backend]:
    """An open database of either kind, with tables and without studies."""
    if database_url.startswith("sqlite"):
        shutil.copy(_ready_file, database_url.removeprefix("sqlite:///"))
    opened = open_backend(database_url, create=True)
    yield opened
    opened.close()


@pytest.fixture
def sqlite(sqlite_url: str, _ready_file: Path) -> Iterator[Backend]:
    """An open SQLite database with tables and without studies."""
    shutil.copy(_ready_file, sqlite_url.removeprefix("sqlite:///"))
    opened = open_backend(sqlite_url, create=True)
    yield opened
    opened.close()


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def refused(self, code: int = 1) -> str:
        """The one line with which the command was refused."""
        assert self.code == code, self
        assert self.out == ""
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("error: ").strip()


Cli = Callable[..., Ran]
Together = Callable[[str, str, list[str]], list[Any]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `affinity-search` in this process."""
    from affinity_search.search.cli import main

    fake_objective.begin_nothing_ahead(monkeypatch.setattr)

    def run(*arguments: str, fails: bool = False) -> Ran:
        monkeypatch.setattr(sys, "argv", ["affinity-search", *arguments])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        ran = Ran(code, *capsys.readouterr())
        assert fails or ran.code == 0, ran
        return ran

    return run


@pytest.fixture
def fake_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake objective in this process."""
    fake_objective.install(monkeypatch.setattr)


@pytest.fixture
def fake_python(tmp_path: Path) -> Path:
    """An executable that is called as Python is and runs `affinity-search` with the fake objective."""
    path = tmp_path / "fake-python"
    path.write_text(f'#!/bin/sh\nexport FAKE_PYTHON="$0"\nexec "{sys.executable}" "{HERE / "fake_command.py"}" "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def _warm_address() -> Iterator[str]:
    with warm_process() as address:
        yield address


@pytest.fixture
def warm(fake_python: Path, _warm_address: str) -> dict[str, str]:
    """The environment of processes with the fake objective that are forked instead of started: a second less each."""
    return {"FAKE_PYTHON": str(fake_python), ADDRESS: _warm_address}


@pytest.fixture
def together(_warm_address: str) -> Together:
    """Several processes that do the same thing to a database at the same moment; see contender.py."""
    return partial(contender.together, _warm_address)


@pytest.fixture
def fake_workers(warm: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher in this process starts workers with the fake objective."""
    for key, value in warm.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("affinity_search.search.launch.process.subprocess", subprocess_but_warm)


@dataclass
class Started:
    """A running command and its growing output."""

    process: subprocess.Popen[bytes] | Warm
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def ended(self, timeout_s: float = 60.0) -> int:
        """Its exit code."""
        return self.process.wait(timeout_s)


Start = Callable[..., Started]


@pytest.fixture
def start(warm: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start `affinity-search` with the fake objective in a process of its own; `fake=False`: as it is.

    `forked=False` starts Python anew, and so do the launcher's workers: where their parents and arguments matter.
    """
    running: list[Started] = []

    def begin(*arguments: str, fake: bool = True, forked: bool = True, **environment: str) -> Started:
        log = tmp_path / f"command-{len(running)}.log"
        python = warm["FAKE_PYTHON"] if fake else sys.executable
        with log.open("wb") as file:
            process = (Warm if fake and forked else subprocess.Popen)(
                [python, "-P", "-m", "affinity_search", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=os.environ | environment | (warm if fake and forked else {}),
                start_new_session=True,
            )
        running.append(Started(process, log))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(30)
