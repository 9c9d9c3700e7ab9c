"""Showing a search while it runs: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.live import Live

from search.snapshot import Best, Snapshot, take
from search.view import best_text, panel, plain_line
from storage.study import StoredStudy

REFRESH_S = 1.0
HINT = "Ctrl-C once: finish the running trials; twice: give them back and stop now"


class Progress(Protocol):
    """Where a launcher shows the state and says things."""

    def show(self, study: StoredStudy, *, last: bool = False) -> None:
        """Show the study's present state; may be called as often as one likes. The `last` call always shows."""

    def say(self, message: str) -> None:
        """One line for the person."""


class LivePanel:
    """Redraws a panel at most once in `REFRESH_S`: every look is a few database queries."""

    def __init__(self, live: Live, hint: str) -> None:
        self._live = live
        self._hint = hint
        self._last = float("-inf")

    def show(self, study: StoredStudy, *, last: bool = False) -> None:
        if last or time.monotonic() - self._last >= REFRESH_S:
            self._live.update(panel(take(study), self._hint), refresh=True)
            self._last = time.monotonic()

    def say(self, message: str) -> None:
        self._live.console.print(message, markup=False)


class PlainLines:
    """A line whenever a place is used or a worker comes or goes, and one for every new best trial."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[int, int] | None = None
        self._best: Best | None = None
        self._looked = float("-inf")

    def show(self, study: StoredStudy, *, last: bool = False) -> None:
        if not last and time.monotonic() - self._looked < REFRESH_S:
            return
        self._looked = time.monotonic()
        snapshot = take(study)
        word = "best so far:" if self._last is None else "new best"
        if self._last != _key(snapshot):
            self._last = _key(snapshot)
            self.say(plain_line(snapshot))
        if self._best != snapshot.best:
            self.say(f"{word} {best_text(snapshot.best, snapshot.protocol, explain=self._best is None)}")
            self._best = snapshot.best

    def say(self, message: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {message}", markup=False)


def _key(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.counts.used, snapshot.counts.running


@contextlib.contextmanager
def progress_for(study: StoredStudy, hint: str = HINT) -> Iterator[Progress]:
    """A live panel if stderr is a terminal, else plain lines."""
    console = Console(stderr=True, highlight=False, emoji=False)
    if not console.is_terminal:
        yield PlainLines(Console(stderr=True, highlight=False, emoji=False, soft_wrap=True))
        return
    with Live(console=console, auto_refresh=False) as live:
        panel_ = LivePanel(live, hint)
        panel_.show(study)
        yield panel_
