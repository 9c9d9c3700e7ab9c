"""How a process learns of signals and of `affinity-search stop`, which leaves a mark in the database."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

from affinity_search.search.worker.exits import Exit
from affinity_search.storage.database.runtime import Background
from affinity_search.storage.database.tables import Stop
from affinity_search.storage.study import StoredStudy


class StopListener:
    """Called with the study as the database has it now. If it was stopped, tells the signals, and tells the person why,
    once.
    """

    def __init__(self, signals: StopSignals, say: Callable[[str], None]) -> None:
        self._signals = signals
        self._say = say
        self._heard: Stop | None = None

    def __call__(self, study: StoredStudy) -> None:
        if study.stopped is None or study.stopped == self._heard:
            return
        self._heard = study.stopped
        self._say(stopped_text(study.under_its_name()))
        self._signals.stop_from_elsewhere(now=study.stopped == Stop.NOW)


def stopped_text(study: StoredStudy) -> str:
    """What the stop means, and how to go on."""
    running = "running ones are given back" if study.stopped == Stop.NOW else "running ones finish"
    return (
        f"study {study.name!r} was stopped by `affinity-search stop`: no new trials, {running}; "
        f"to go on: affinity-search launch {shlex.quote(study.name)}"
    )


class StopSignals:
    """Within its context the first SIGINT asks to finish the running trials. A second one, SIGTERM or SIGHUP asks to
    stop now.

    The handler only sets flags: an exception from it could interrupt a database write. A signal that was ignored at the
    start stays ignored. `nohup` ignores SIGHUP; a script's `&` ignores SIGINT.
    """

    def __init__(self, on_change: Callable[[StopSignals], None] | None = None) -> None:
        self.draining = False
        self.stopping = False
        self._on_change = on_change
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if not is_ignored(number):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.stopping = self.stopping or self.draining or number != signal.SIGINT
        self.draining = True
        if self._on_change:
            self._on_change(self)

    def stop_from_elsewhere(self, *, now: bool) -> None:
        """As a signal would, for a request from the database. `now` also reaches a main thread in C code."""
        if now and not self.stopping:
            os.kill(os.getpid(), signal.SIGTERM)
        self.draining = True

    def should_stop(self) -> bool:
        """A trainer asks this after every call of its compiled step."""
        return self.stopping


def is_ignored(number: int) -> bool:
    """Whether this process was started with the signal ignored."""
    return signal.getsignal(number) == signal.SIG_IGN


GRACE_S = 6.0  # for the normal end: finish a step, write a checkpoint, give the place back
LAST_RESORT_S = 2.5  # for the same, done by another thread


class Deadline(Background):
    """Within its context a request to stop now ends the process if it still runs after `grace_s`.

    Python runs signal handlers in the main thread between two instructions. So it cannot while that thread is inside a
    compilation or a large step. The C handler writes the signal's number into a pipe at once, and this thread reads it.
    """

    def __init__(
        self,
        last_resort: Callable[[], object] = lambda: None,
        *,
        grace_s: float = GRACE_S,
        exit_now: Callable[[int], object] = os._exit,
    ) -> None:
        """`last_resort` saves what can be saved. It has 2.5 s, and the main thread may wake up meanwhile.

        It may be set later, when there is something to save.
        """
        super().__init__("deadline")
        self.last_resort = last_resort
        self._grace_s = grace_s
        self._exit_now = exit_now
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._former = -1

    def __enter__(self) -> Deadline:
        self._former = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._former)
        self._done.set()
        os.write(self._write, b"\0")
        super().__exit__(None, None, None)
        os.close(self._read)
        os.close(self._write)

    def _run(self) -> None:
        interrupts = 0
        while number := os.read(self._read, 1)[0]:
            interrupts += number == signal.SIGINT
            if number in (signal.SIGTERM, signal.SIGHUP) or interrupts > 1:
                break
        else:
            return
        if self._done.wait(self._grace_s):
            return
        saving = threading.Thread(target=self.last_resort, daemon=True)
        saving.start()
        saving.join(LAST_RESORT_S)
        self._exit_now(Exit.STOPPED)
