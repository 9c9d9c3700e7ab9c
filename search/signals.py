"""Asking a worker or a launcher to stop: politely first, at once the second time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType


class StopSignals:
    """Within its context, the first SIGINT asks to drain; a second one, SIGTERM or SIGHUP to stop now.

    The handler only sets flags: raising from it could tear a database write apart. What was ignored at the start stays
    ignored: `nohup` ignores SIGHUP, and a shell's `&` in a script SIGINT.
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
        """As a signal would; for a request that came by the database. `now` also reaches a main thread deep in C."""
        if now and not self.stopping:
            os.kill(os.getpid(), signal.SIGTERM)
        self.draining = True

    def should_stop(self) -> bool:
        """For a trainer, which asks after every call of its compiled step."""
        return self.stopping


def is_ignored(number: int) -> bool:
    """Whether whoever started this process has seen to it that the signal does nothing."""
    return signal.getsignal(number) == signal.SIG_IGN
