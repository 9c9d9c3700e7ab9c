"""What a process is and does beside its work: who runs it, threads that live as long as a context, the collector."""

from __future__ import annotations

import contextlib
import gc
import getpass
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from affinity_search.storage.errors import VanishedError


def user_at_host() -> str:
    """user@host. It is recorded with every stop and every opening of the test set."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


LONGEST_END_S = 10.0  # the end waits no longer for a hanging request; the thread is a daemon


class Background(ABC):
    """Within its context `_run` runs in another thread. The thread ends when `_done` is set."""

    def __init__(self, name: str) -> None:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run_while_present, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(timeout=LONGEST_END_S)

    def _run_while_present(self) -> None:
        with contextlib.suppress(VanishedError):  # the main thread finds the same and says so
            self._run()

    @abstractmethod
    def _run(self) -> None:
        """Work until `_done` is set. Pause by waiting for it."""


_lock = threading.Lock()
_resting = 0


@contextlib.contextmanager
def collector_resting() -> Iterator[None]:
    """Within it Python's garbage collector is off, in all threads."""
    global _resting
    with _lock:
        _resting += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _resting -= 1
            if not _resting:
                gc.enable()


def leave_what_is_here() -> None:
    """Later garbage collections skip the objects that exist now. To scan a framework or 10,000 trials takes half a
    second.
    """
    gc.freeze()


@contextlib.contextmanager
def collector_skipping() -> Iterator[None]:
    """The collector rests, and later skips what was made within it. Resting alone puts the scan off to the end."""
    with collector_resting():
        yield
        leave_what_is_here()


def collect_what_is_left() -> None:
    """Free what a long piece of work left behind, also what `leave_what_is_here` set aside."""
    gc.unfreeze()
    gc.collect()
