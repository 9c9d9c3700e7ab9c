"""One run of one contender, in a fresh folder and fresh processes: seconds, processor seconds, memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.race.contenders import Contender
from benchmarks.race.job import Job

LOOK_EVERY_S = 0.1
LOOK_AT_PROCESSES_EVERY_S = 0.5
LONGEST_S = 1800.0
LEFT_OVER_S = 20.0
_BECOME_REAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)


class FailedError(Exception):
    """The run did not end well, or without all results."""


@dataclass(frozen=True)
class Measured:
    """`first_s` is when the first result was there, `memory` the largest sum of PSS at any sample, in bytes."""

    whole_s: float
    first_s: float
    cpu_s: float
    memory: int


def adopt_orphans() -> None:
    """Processes that outlive their parents become ours: then their processor seconds are counted too. Linux only."""
    ctypes.CDLL(None, use_errno=True).prctl(_BECOME_REAPER, 1, 0, 0, 0)


def run(contender: Contender, job: Job, folder: Path, data_dir: Path | None) -> Measured:
    """The whole job. Raises FailedError with the end of what was said."""
    before = _waited_for_s()
    said = folder / "said"
    environment = os.environ | dict(contender.environment)
    watch = Watch(_descendants())
    began = time.monotonic()
    with said.open("wb") as file:
        text = "\n".join(contender.typed(job, data_dir))
        shell = subprocess.Popen(["sh", "-e", "-c", text], cwd=folder, env=environment, stdout=file, stderr=file)
    first_s = watch.until_end(shell, lambda: contender.finished(folder, job), began)
    whole_s = time.monotonic() - began
    watch.end_what_is_left()
    done = contender.finished(folder, job)
    if shell.returncode or done != job.trials or first_s is None:
        raise FailedError(f"exit code {shell.returncode}, {done} results: {said.read_text()[-3000:]}")
    return Measured(whole_s, first_s, max(_waited_for_s() - before, watch.cpu_s), watch.memory)


class Watch:
    """What all our descendants use but those that were `there` before, looked at every half second.

    `memory` is the largest sum of PSS, in which a page that several processes share is counted once. Of processor time
    the system tells all, but for processes that nobody waits for, as Ray's: those are known from the last look.
    """

    def __init__(self, there: Collection[psutil.Process]) -> None:
        self.memory = 0
        self._there = set(there)
        self._cpu_s: dict[tuple[int, float], float] = {}  # by process

    @property
    def cpu_s(self) -> float:
        return sum(self._cpu_s.values())

    def until_end(self, shell: subprocess.Popen[bytes], finished: Callable[[], int], began: float) -> float | None:
        """Until the command has ended; seconds to the first result, if there was one."""
        first_s, looked = None, 0.0
        while shell.poll() is None:
            now = time.monotonic()
            if first_s is None and finished():
                first_s = now - began
            if now - looked >= LOOK_AT_PROCESSES_EVERY_S:
                self._look()
                looked = now
            if now - began > LONGEST_S:
                shell.kill()
            time.sleep(LOOK_EVERY_S)
        return first_s or (time.monotonic() - began if finished() else None)

    def _look(self) -> None:
        memory = 0
        for process in self._new():
            with contextlib.suppress(psutil.Error):
                memory += process.memory_full_info().pss
                used = process.cpu_times()
                self._cpu_s[process.pid, process.create_time()] = used.user + used.system
        self.memory = max(self.memory, memory)

    def _new(self) -> list[psutil.Process]:
        return [process for process in _descendants() if process not in self._there]

    def end_what_is_left(self) -> None:
        """Servers that a contender leaves behind are given some time, then killed."""
        _, alive = psutil.wait_procs(self._new(), LEFT_OVER_S)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, LEFT_OVER_S)


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _waited_for_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
