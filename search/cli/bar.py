"""A bar of the files that a command reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affinity_search.search.cli.options import console

if TYPE_CHECKING:
    from affinity_search.search.training.data.own import Progress


class bar:  # noqa: N801 - used as a function
    """A progress bar on a terminal; silence elsewhere, or unless `shown`."""

    def __init__(self, *, shown: bool = True) -> None:
        """Nothing is drawn yet."""
        self._shown = shown

    def __enter__(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        shown = self._shown and console().is_terminal
        # What others print to stdout stays there: it may be a file.
        self._bar = Bar(*columns, console=console(), transient=True, disable=not shown, redirect_stdout=False)
        self._bar.start()
        task = self._bar.add_task("reading", total=None)
        return lambda done, total: self._bar.update(task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
