"""Waiting for what other processes do: by looking, with a deadline, never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LOOK_EVERY_S = 0.02


def until(look: Callable[[], T], what: str, timeout_s: float = 60.0) -> T:
    """Look again and again; returns the first true answer, and fails naming `what` if none comes in time."""
    deadline = time.monotonic() + timeout_s
    while not (answer := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain for {what}")
        time.sleep(LOOK_EVERY_S)
    return answer
