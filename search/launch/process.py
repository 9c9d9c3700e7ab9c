"""A launcher's worker process: how it is started, told to stop, and what it said before it died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from affinity_search.search.devices.slots import Slot
from affinity_search.search.launch.ahead import UNBUFFERED, Ahead
from affinity_search.search.launch.children import COMMAND, surroundings
from affinity_search.search.worker.setup import new_worker_id
from affinity_search.storage.stored.agenda import Agenda


class Process(Protocol):
    """What a launcher needs of a worker's process, on any machine: some of Popen's methods."""

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int, /) -> None: ...

    def kill(self) -> None: ...


@dataclass
class WorkerProcess:
    """A slot and the process that runs in it now."""

    slot: Slot
    logs: Path
    process: Process | None = None
    worker_id: str = ""
    early_deaths: int = 0
    memory_failures: int = 0  # processes that ended because the GPU had no room for a trial
    troubled_since: float | None = None  # when its device was first found lost or full, by the launcher's clock
    told: int | None = None  # the last signal that was passed on to the present process
    retired: str | None = None  # why nothing more is started here
    ahead: Ahead | None = None  # a process that may become this worker

    @property
    def log(self) -> Path:
        return self.logs / f"{self.worker_id}.log"

    def last_line(self) -> str:
        """The last line of the worker's log, which should say why it died."""
        try:
            said = self.log.read_text(errors="replace")
        except OSError:  # the log was removed
            return f"(its log {self.log} is gone)"
        lines = [line.removeprefix("error: ") for line in said.splitlines() if line.strip()]
        return lines[-1] if lines else "(its log is empty)"

    def start(self, agenda: Agenda, options: Sequence[str]) -> None:
        """Start a worker here, with an id of its own."""
        command = [*self.new_command(), *options, "--", agenda.name]
        environment = surroundings() | self.environment(agenda)
        self.told = None
        with self._open_log() as log:
            arguments = command[len(COMMAND) :]
            self.process = self.ahead.become(self.slot, arguments, environment, str(log.name)) if self.ahead else None
            self.process = self.process or subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # In a process group of its own: Ctrl-C in the terminal reaches only the launcher, which passes it on.
                start_new_session=True,
            )

    def _open_log(self) -> IO[bytes]:
        """A log only informs. If it cannot be written, the worker's output is dropped."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)  # cleaners remove old folders
            return self.log.open("wb")
        except OSError:
            return Path(os.devnull).open("wb")

    def new_command(self) -> list[str]:
        """The first arguments for Python that start a worker here. The launcher adds the rest."""
        slot = self.slot
        self.worker_id = f"{new_worker_id()}-{slot.label.replace(':', '')}"
        command = [*COMMAND, "worker", "--device", slot.device, "--worker-id", self.worker_id]
        command += ["--threads", str(slot.threads)] if slot.threads else []
        command += ["--memory-mib", str(slot.memory_mib)] if slot.memory_mib else []
        return command

    def environment(self, agenda: Agenda) -> dict[str, str]:
        """Variables for the worker. The URL is among them: every user of a machine can read a command's arguments."""
        return self.slot.environment | UNBUFFERED | {"AFFINITY_SEARCH_STORAGE": agenda.backend.secret_url}

    def tell(self, number: int) -> None:
        """Pass a signal on, once."""
        if self.process and self.told != number:
            self.process.send_signal(number)
            self.told = number

    def wait_or_kill(self, seconds: float) -> None:
        """Until it has ended."""
        assert self.process is not None
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def exit_text(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name}"
