"""Waiting for a database that is away: a worker's request is tried again until the database is back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential, wait_random

from affinity_search.storage import DEFAULT_LIMIT_S
from affinity_search.storage.database.failures import first_line
from affinity_search.storage.errors import StorageGoneError, VanishedError

T = TypeVar("T")

LONGEST_PAUSE_S = 15.0
LOCK_WAIT_S = 60.0  # for another connection's lock on a SQLite file
# Operational errors that do not go away by waiting.
LASTING = ("no such table", "no such column", "readonly database", "does not exist", "syntax error", "malformed")


def is_transient(error: BaseException | None) -> bool:
    """Whether the failure is due to the connection or to a lock. Then the same request may succeed later.

    Optuna wraps database errors, and its `StorageInternalError` covers bad data too. So the causes decide.
    """
    while error is not None and not isinstance(error, VanishedError):
        if isinstance(error, PoolTimeoutError):
            return True
        if isinstance(error, DBAPIError):
            passing = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
            return passing and not any(words in str(error.orig) for words in LASTING)
        error = error.__cause__ or error.__context__
    return False


class _Mood(threading.local):
    """How the requests of this thread react to a failure."""

    hurried = False
    patient = False


_mood = _Mood()


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Within it, requests of this thread fail at the first error. They wait only a second for a locked SQLite file."""
    before, _mood.hurried = _mood.hurried, True
    try:
        yield
    finally:
        _mood.hurried = before


@contextlib.contextmanager
def _as_patient() -> Iterator[None]:
    before, _mood.patient = _mood.patient, True
    try:
        yield
    finally:
        _mood.patient = before


def lock_wait_s() -> float:
    """How long a request of this thread waits for another connection's lock on a SQLite file."""
    if _mood.hurried:
        return 1.0
    return 5.0 if _mood.patient else LOCK_WAIT_S  # with patience it is tried again, and may stop in between


class Patience:
    """Tries a request again for `limit_s`, in pauses that grow to 15 s.

    It must be safe to make every request twice: an answer can be lost with the connection after the request succeeded.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        limit_s: float = DEFAULT_LIMIT_S,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """`give_up` is asked between tries, so that a worker that must stop now does not wait."""
        self._say = say
        self.limit_s = limit_s
        self._give_up = give_up

    def call(self, request: Callable[[], T]) -> T:
        """Returns the request's answer.

        Raises:
            StorageGoneError: the database stayed away for `limit_s`, or `give_up` said so.
        """
        if _mood.hurried:
            return request()
        try:
            with _as_patient():
                return request()
        except Exception as error:
            if not is_transient(error):
                raise
            return self._again(request, error)

    def _again(self, request: Callable[[], T], first: Exception) -> T:
        """Go on trying. It is separate from `call` because it would make every request a tenth slower."""
        since = time.monotonic()
        failures = [first]

        def tried() -> T:
            if failures:
                raise failures.pop()
            return request()

        retrying = Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_exponential(multiplier=0.5, max=LONGEST_PAUSE_S) + wait_random(0.0, 0.5),
            stop=lambda state: self._give_up() or stop_after_delay(self.limit_s)(state),
            before_sleep=self._announce,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            with _as_patient():
                answer = retrying(tried)
        except Exception as error:
            if is_transient(error):
                raise StorageGoneError.after(time.monotonic() - since, first_line(error)) from error
            raise
        self._say(f"the storage is back after {time.monotonic() - since:.0f} s")
        return answer

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._give_up():
            time.sleep(min(0.25, seconds))

    def _announce(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            self._say(f"the storage is away ({first_line(state.outcome.exception())}); waiting for it")
