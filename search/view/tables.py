"""Tables that fit the terminal. If it is too narrow, the least important columns are left out and named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 2
LEAST_FOLDED = 12  # a column of words narrower than this is no longer read


@dataclass(frozen=True)
class Column:
    """A column with `rank` 0 always stays. Of the others the highest rank is left out first."""

    name: str
    right: bool = False
    rank: int = 0


@dataclass(frozen=True)
class Fitted:
    """A table for `Console.print`. Text in its cells is never read as markup."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str | Text]]
    title: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = self._kept(options.max_width)
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, GAP, 0, 0), title_justify="left")
        table.title = Text(self.title) if self.title else None
        for number in kept:
            column = self.columns[number]
            table.add_column(Text(column.name), justify="right" if column.right else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text() + row[number] for number in kept))
        yield table
        left_out = [column.name for number, column in enumerate(self.columns) if number not in kept]
        if left_out:
            yield Text(f"(too narrow for: {', '.join(left_out)})", style="dim")

    def _kept(self, width: int) -> list[int]:
        """Numbers of the columns that fit. Words may be wrapped, numbers may not."""
        kept = list(range(len(self.columns)))
        while self._needed(kept) > width and any(self.columns[number].rank for number in kept):
            kept.remove(max(kept, key=lambda number: (self.columns[number].rank, number)))
        return kept

    def _needed(self, kept: Iterable[int]) -> int:
        widths = [self._width(number) for number in kept]
        return sum(widths) + GAP * (len(widths) - 1)

    def _width(self, number: int) -> int:
        column = self.columns[number]
        longest = max(cell_len(str(text)) for text in (column.name, *(row[number] for row in self.rows)))
        return longest if column.right else min(longest, max(LEAST_FOLDED, cell_len(column.name)))
