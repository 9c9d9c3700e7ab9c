"""A worker that was asked to stop now is gone within ten seconds, whatever its main thread is doing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from search.exits import Exit
from storage.background import Background

GRACE_S = 6.0  # for the regular way out: the end of a step, a checkpoint, the place given back
LAST_RESORT_S = 2.5  # for the same from another thread


class Deadline(Background):
    """Within its context, a request to stop now that is not followed in `grace_s` ends the process.

    Python runs signal handlers in the main thread, between two of its instructions: not while that thread is inside a
    compilation or a large step. The C handler writes the signal's number into a pipe at once, and this thread reads it.
    """

    def __init__(
        self,
        last_resort: Callable[[], None],
        *,
        grace_s: float = GRACE_S,
        exit_now: Callable[[int], object] = os._exit,
    ) -> None:
        """`last_resort` saves what can be saved; it is given 2.5 s and must bear that the main thread wakes up."""
        super().__init__("deadline")
        self._last_resort = last_resort
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
        saving = threading.Thread(target=self._last_resort, daemon=True)
        saving.start()
        saving.join(LAST_RESORT_S)
        self._exit_now(Exit.STOPPED)
