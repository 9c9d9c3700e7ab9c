"""Real processes that begin quickly: a fork server imports everything once, and each worker is a fork of it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from optuna_compare.conditions import PATIENCE_S

PR_SET_PDEATHSIG = 1
LONGEST_MESSAGE = 45

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["optuna_compare.plain", "optuna_compare.ours"])

_barrier: Barrier | None = None  # of this process


@dataclass
class Started:
    """A process and its log."""

    process: BaseProcess
    log: Path
    barrier: Barrier | None = None  # lives as long as somebody here refers to it
    hangs: bool = False

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """Its exit code; one that does not end is killed and marked."""
        self.process.join(timeout_s)
        if self.process.is_alive():
            self.hangs = True
            self.kill()
        assert self.process.exitcode is not None
        return self.process.exitcode

    def last_words(self) -> str:
        """What it died of: the name of the error, and its message if that is short."""
        if self.hangs:
            return "hangs"
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception|Interrupt)\b|error: ", line)]
        if not errors:
            return f"exit code {self.process.exitcode}"
        kind, _, message = errors[-1].partition(": ")
        kind = kind.rpartition(".")[2]
        return f"{kind}: {message}" if 0 < len(message) <= LONGEST_MESSAGE else kind


def start(body: Callable[..., None], arguments: Sequence[Any], log: Path, barrier: Barrier | None = None) -> Started:
    """`body` in a process of its own, whose output goes to `log`; `barrier` is for its `meet_others`."""
    process = FORKS.Process(target=_begin, args=(body, arguments, log, barrier), daemon=True)
    process.start()
    return Started(process, log, barrier)


def start_together(body: Callable[..., None], arguments: Sequence[Sequence[Any]], folder: Path) -> list[Started]:
    """A process for each of the arguments; those that call `meet_others` go on from there within microseconds."""
    barrier = FORKS.Barrier(len(arguments))
    stamp = time.monotonic_ns()
    return [start(body, given, folder / f"{stamp}-{number}.log", barrier) for number, given in enumerate(arguments)]


def meet_others() -> None:
    """For a process of `start_together`; one that was started alone goes on at once."""
    if _barrier is not None:
        _barrier.wait(PATIENCE_S)


def deaths(workers: Sequence[Started], what: str = "workers") -> tuple[int, str]:
    """How many of them died, and a phrase for the table that says of what; waits for all of them."""
    dead = [worker for worker in workers if worker.ended() != 0]
    if not dead:
        return 0, f"0 of {len(workers)} {what} died"
    causes = sorted({worker.last_words() for worker in dead})
    return len(dead), f"{len(dead)} of {len(workers)} {what} died ({'; '.join(causes)})"


def _begin(body: Callable[..., None], arguments: Sequence[Any], log: Path, barrier: Barrier | None) -> None:
    """Nothing stays behind when the benchmark is killed: the fork server ends with it, and this process with that."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    with log.open("wb") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    global _barrier
    _barrier = barrier
    body(*arguments)
