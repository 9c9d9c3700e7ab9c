"""Showing a search while it runs: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from rich.console import Console
from rich.live import Live

from search.snapshot import Best, Snapshot, take
from search.view import best_text, duration_text, panel, plain_line, starting_text
from storage.study import StoredStudy

REFRESH_S = 1.0
QUIET_S = 60.0  # without a line, until one tells that the search goes on
HINT = "Ctrl-C once: finish the running trials; twice: give them back and stop now"


class Progress(Protocol):
    """Where a launcher shows the state and says things."""

    def show(self, study: StoredStudy, workers: Sequence[str] = ()) -> None:
        """Show the study's present state and what these workers do; may be called as often as one likes."""

    def say(self, message: str) -> None:
        """One line for the person."""


class LivePanel:
    """Redraws a panel at most once in `REFRESH_S`: every look is a few database queries."""

    def __init__(self, live: Live, hint: Callable[[], str]) -> None:
        self._live = live
        self._hint = hint
        self._looked = float("-inf")
        self._started = time.monotonic()
        self._begun: set[str] = set()  # workers that have had a place
        self._most = 0  # how many worked at once

    def show(self, study: StoredStudy, workers: Sequence[str] = ()) -> None:
        if time.monotonic() - self._looked < REFRESH_S:
            return
        self._looked = time.monotonic()
        snapshot = take(study, max(len(workers), self._most))
        self._begun |= {one.worker for one in snapshot.running}
        self._most = max(self._most, len(snapshot.running)) if not workers else len(workers)
        starting = len(set(workers) - self._begun)
        lasts = f" ({duration_text(time.monotonic() - self._started)})"
        self._live.update(
            panel(snapshot, self._hint(), starting_text(starting) + lasts if starting else ""), refresh=True
        )

    def say(self, message: str) -> None:
        self._live.console.print(message, markup=False)


class PlainLines:
    """A line whenever a place is used or a worker comes or goes, one for every new best trial, and one in a while."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[int, int] | None = None
        self._best: Best | None = None
        self._looked = self._said = float("-inf")

    def show(self, study: StoredStudy, workers: Sequence[str] = ()) -> None:
        if time.monotonic() - self._looked < REFRESH_S:
            return
        self._looked = time.monotonic()
        snapshot = take(study, len(workers))
        if snapshot.counts.used == snapshot.counts.total:
            return  # whoever shows a search tells how it ended
        word = "best so far:" if self._last is None else "new best"
        if self._last is None and workers:
            self.say(starting_text(len(workers)))
        if self._last != _key(snapshot) or (snapshot.running and time.monotonic() - self._said >= QUIET_S):
            self._last = _key(snapshot)
            self.say(plain_line(snapshot))
        if self._best != snapshot.best:
            self._best = snapshot.best
            self.say(f"{word} {best_text(snapshot.best, snapshot.protocol)}")

    def say(self, message: str) -> None:
        self._said = time.monotonic()
        self._console.print(f"{time.strftime('%H:%M:%S')} {message}", markup=False)


def _key(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.counts.used, snapshot.counts.running


@contextlib.contextmanager
def progress_for(study: StoredStudy, hint: Callable[[], str]) -> Iterator[Progress]:
    """A live panel if stderr is a terminal, with `hint` below it, else plain lines."""
    console = Console(stderr=True, highlight=False, emoji=False)
    if not console.is_terminal:
        yield PlainLines(Console(stderr=True, highlight=False, emoji=False, soft_wrap=True))
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:  # what follows tells how it ended
        panel_ = LivePanel(live, hint)
        panel_.show(study)
        yield panel_
