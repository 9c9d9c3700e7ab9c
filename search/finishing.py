"""What comes after a trial's training, done beside the next one's: pictures, their upload, the Optuna trial's end.

The place's row has decided already. A worker that is killed in between leaves a half, which recovery completes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self


class Finisher(Protocol):
    """Takes the last steps of one trial after the other."""

    def submit(self, step: Callable[[], object]) -> None:
        """Do it now or soon; raises what an earlier one raised."""


class AtOnce:
    """The null twin: whoever submits waits."""

    def submit(self, step: Callable[[], object]) -> None:
        step()


class Beside:
    """Within its context, steps are taken by one thread; at most one trial is behind, and the end waits for it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="finishing")
        self._last: Future[object] | None = None

    def submit(self, step: Callable[[], object]) -> None:
        self._wait()
        self._last = self._thread.submit(step)

    def _wait(self) -> None:
        if self._last is not None:
            last, self._last = self._last, None
            last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        if error is None:
            self._wait()
