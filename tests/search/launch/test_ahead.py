"""A worker begun before its study is known: it becomes that worker, or it ends with the launch that began it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from waiting import until

from affinity_search.search.devices.slots import Slot, cpu_cores, plan
from affinity_search.search.launch import ahead
from affinity_search.search.launch.ahead import Ahead
from affinity_search.search.launch.children import COMMAND, LATER

CPU = Slot("cpu", "cpu", 2, {"CUDA_VISIBLE_DEVICES": "-1"})
GPU = Slot("gpu:0", "gpu:0", None, {"CUDA_VISIBLE_DEVICES": "GPU-1"})
on_two_cores = pytest.mark.skipif(cpu_cores() < 2, reason="with one core nothing is begun ahead")
# In place of the real command, with TensorFlow's import faked at the hardware's edge.
TOLD = """
import json, os, sys
from affinity_search.search import devices
devices.import_ahead = lambda: print("not in the log", flush=True)
from affinity_search.search.launch.ahead import received
told = received()
print(json.dumps([told, dict(os.environ), sys.stdin.read()]), flush=True)
print("an error", file=sys.stderr)
"""


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ahead]:
    monkeypatch.setattr(ahead, "COMMAND", ("-c", TOLD))
    monkeypatch.setenv("OF_THE_LAUNCHER", "1")
    made = Ahead(CPU)
    yield made
    made.end()


def test_it_becomes_a_worker_with_arguments_surroundings_and_a_log(begun: Ahead, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.touch()
    process = begun.become(CPU, ["worker", "--", "näme"], {"HERE": "secret"}, str(log))
    assert process is not None
    assert process.wait(60) == 0
    said, error = log.read_text().splitlines()
    assert json.loads(said) == [["worker", "--", "näme"], {"HERE": "secret"}, ""]
    assert error == "an error"
    assert begun.become(CPU, ["worker"], {}, str(log)) is None, "it is a worker already"


def test_it_is_no_worker_of_another_kind_of_device(begun: Ahead, tmp_path: Path) -> None:
    assert begun.become(GPU, ["worker"], {}, str(tmp_path / "log")) is None


def test_one_that_has_died_is_not_used(begun: Ahead, tmp_path: Path) -> None:
    assert begun._process is not None
    begun._process.kill()
    begun._process.wait()
    assert begun.become(CPU, ["worker"], {}, str(tmp_path / "log")) is None


def test_what_is_not_needed_is_ended(begun: Ahead) -> None:
    process = begun._process
    assert process is not None
    begun.end()
    assert process.returncode == -signal.SIGKILL


def test_it_begins_only_where_it_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def begins(slots: Sequence[Slot]) -> bool:
        with Ahead.begun(slots) as made:
            return made is not None

    monkeypatch.setattr(ahead, "COMMAND", ("-c", TOLD))
    monkeypatch.setattr(ahead, "cpu_cores", lambda: 1)
    assert not begins(plan("cpu", 1))
    monkeypatch.setattr(ahead, "cpu_cores", lambda: 8)
    assert not begins([GPU])
    assert not begins([])
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert begins(plan("cpu", 1))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert not begins(plan("cpu", 1))


def test_a_command_that_fails_ends_what_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a process that lives on, as a test's does."""
    monkeypatch.setattr(ahead, "COMMAND", ("-c", TOLD))
    monkeypatch.setattr(ahead, "cpu_cores", lambda: 8)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    began: list[subprocess.Popen[bytes] | None] = []

    def command() -> None:
        with Ahead.begun([CPU]) as made:
            assert made is not None
            began.append(made._process)
            raise ValueError("no such study")

    with pytest.raises(ValueError, match="no such study"):
        command()
    assert began[0] is not None
    assert began[0].returncode == -signal.SIGKILL


def of_launch(mark: str) -> list[psutil.Process]:
    """Processes begun ahead by a launch with that mark in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if LATER in process.cmdline() and process.environ().get("MARK") == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def launching(mark: str, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The real command; its study does not exist yet."""
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    environment |= {"MARK": mark, "AFFINITY_SEARCH_STORAGE": f"sqlite:///{folder}/ahead.db"}
    command = [sys.executable, *COMMAND, "launch", *arguments, "--workers", "1", "--trials", "1"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.long
@on_two_cores
def test_a_launch_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    process = launching("killed", tmp_path, "digits")
    until(lambda: of_launch("killed"), "a worker to begin ahead")
    process.kill()
    process.wait()
    until(lambda: not of_launch("killed"), "it to end", 60)
    assert not (tmp_path / "ahead.db").exists(), "the launch was not as young as it should be"


def test_a_launch_without_a_study_leaves_nothing_behind(tmp_path: Path) -> None:
    process = launching("mistaken", tmp_path, "no-such-study")
    assert process.wait(60) != 0
    assert of_launch("mistaken") == []


@pytest.mark.long
@on_two_cores
def test_a_real_launch_trains_in_the_process_that_began_ahead(tmp_path: Path) -> None:
    process = launching("real", tmp_path, "digits", "--set", "training.epochs=1")
    until(lambda: of_launch("real"), "a worker to begin ahead")
    worker = of_launch("real")[0]
    assert process.wait(120) == 0
    assert not worker.is_running()
    (log,) = tmp_path.glob("*.files/*/logs/*/*.log")
    assert "complete: macro F1" in log.read_text()
    with contextlib.closing(sqlite3.connect(tmp_path / "ahead.db")) as connection:
        assert connection.execute("SELECT pid FROM affinity_places").fetchall() == [(worker.pid,)]
