"""Waiting for what other processes do: by looking, with a deadline, never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.1  # most looks ask a database: what waits should not take the time of what is waited for


def until(look: Callable[[], T], what: str, timeout_s: float = 60.0) -> T:
    """Look again and again; returns the first true answer, and fails naming `what` if none comes in time."""
    deadline, pause_s = time.monotonic() + timeout_s, FIRST_PAUSE_S
    while not (answer := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain for {what}")
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, LONGEST_PAUSE_S)
    return answer
