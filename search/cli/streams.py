"""The standard streams as they come: closed, full, a broken pipe, or with an encoding that lacks our letters.

Text for people must never end a search: what cannot be written to stderr is dropped. Data must never be lost in
silence: a failure of stdout ends the command with one line.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from affinity_search.studies.errors import AffinitySearchError

STDOUT, STDERR = 1, 2


class StdoutError(AffinitySearchError):
    """Data could not be written: the command ends with this line."""


ENDS_STDOUT = (StdoutError, BrokenPipeError)


class Stream:
    """A standard stream that reacts in its own way when a write fails. All else is the stream's."""

    def __init__(self, stream: TextIO, failed: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._failed = failed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if text or not isinstance(text, str):  # libraries write b"" and "" to find out what kind of stream it is
            with self._reaction():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._reaction():
            self._stream.flush()

    @contextlib.contextmanager
    def _reaction(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed(error)


def settle() -> None:
    """Make sure that the standard streams can be written to. Call it before anything else opens a file."""
    _fill_closed()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if not isinstance(sys.stderr, Stream):
        sys.stdout = Stream(sys.stdout, _refuse)
        sys.stderr = Stream(sys.stderr, lambda error: None)


def _refuse(error: OSError) -> None:
    if isinstance(error, BrokenPipeError):  # its reader has what it wanted
        raise error
    raise StdoutError(f"standard output cannot be written: {error.strerror}") from error


def _fill_closed() -> None:
    """Open closed streams. Otherwise the next open file, perhaps the database, would get what is written to stderr."""
    for number in (0, STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError:
            # The system takes the lowest free number: this one. Writing to stdout must fail, since the data would be
            # lost.
            os.open(os.devnull, os.O_WRONLY if number == STDERR else os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = open(STDOUT, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(STDERR, "w", closefd=False)  # noqa: SIM115


def abandon_stdout() -> None:
    """Drop what is left in its buffer: Python would fail on it once more when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
