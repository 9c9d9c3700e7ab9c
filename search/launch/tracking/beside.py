"""The collector's process beside a launcher: how it is started, what it says, and how it is told that all is over.

Its standard input is a pipe that the launcher holds. When that is closed, however the launcher ends, the collector
tries a last time and ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from affinity_search.search.launch.children import COMMAND, surroundings
from affinity_search.search.launch.process import exit_text
from affinity_search.search.launch.tracking.addresses import Sending
from affinity_search.search.launch.tracking.collector import LAST_TRY_S, command
from affinity_search.search.launch.tracking.targets import ANSWER_S
from affinity_search.storage.stored.agenda import Agenda

LOOK_S = 0.2
RESTARTS = 3


class CollectorProcess:
    """Within its context a collector runs, if there is anything to send to."""

    def __init__(
        self,
        agenda: Agenda,
        sending: Sending,
        files: Path | None,
        say: Callable[[str], None],
        is_hurried: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_hurried` says at the end whether somebody asks to stop now."""
        self._agenda = agenda
        self._sending = sending
        self._files = files
        self._say = say
        self._is_hurried = is_hurried
        self.process: subprocess.Popen[str] | None = None
        self._closing = threading.Lock()  # held from the end on: nothing is started any more

    def __enter__(self) -> Self:
        if self._sending:
            self.process = self._started()
            self._reader = threading.Thread(target=self._look_after, name="collector", daemon=True)
            self._reader.start()
        return self

    def _started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *self._command()],
            env=surroundings() | self._sending.variables | {"AFFINITY_SEARCH_STORAGE": self._agenda.backend.secret_url},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in the terminal is the launcher's
        )

    def _command(self) -> Sequence[str]:
        options = ["--to", "mlflow"] if self._sending.mlflow else []
        options += ["--files", str(self._files)] if self._files else []
        return [*COMMAND, "track", "--beside", *options, "--", self._agenda.name]

    def _look_after(self) -> None:
        """Pass on what it says. If it dies, start another one, a few times."""
        for starts_left in range(RESTARTS, -1, -1):
            assert self.process is not None
            assert self.process.stderr is not None
            for line in self.process.stderr:
                if line.strip():
                    self._say(line.rstrip())
            code = self.process.wait()
            if not starts_left or not self._closing.acquire(blocking=False):
                return
            try:
                self._say(f"the collector ended early ({exit_text(code)}); another one is started")
                self.process = self._started()
            finally:
                self._closing.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process is None:
            return
        self._closing.acquire()
        process = self.process
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already
            if error is not None and str(error):
                process.stdin.write(str(error).partition("\n")[0])
            process.stdin.close()
        self._wait(process)
        self._reader.join(1.0)
        if process.returncode:
            again = command(self._agenda, self._sending, "")
            self._say(f"the collector ended early ({exit_text(process.returncode)}); to send what is missing: {again}")

    def _wait(self, process: subprocess.Popen[str]) -> None:
        """It ends by itself after its last try. A request that hangs, or a person who wants to stop now, ends it."""
        deadline = time.monotonic() + LAST_TRY_S + 2 * ANSWER_S
        while process.poll() is None:
            if time.monotonic() > deadline or self._is_hurried():
                process.kill()
                process.wait()
                return
            time.sleep(LOOK_S)
