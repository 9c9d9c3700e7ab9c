"""The report as Markdown, for a README or a review: the page's words and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from affinity_search.search.experiments.document import ComparisonModel, LevelModel
from affinity_search.search.experiments.report import tables, words
from affinity_search.search.experiments.report.drawing import printable
from affinity_search.search.experiments.report.page import level_tables, subtitle

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&$])")


def markdown(found: ComparisonModel) -> str:
    """The whole text."""
    return "\n".join(_lines(found)).rstrip() + "\n"


def _lines(found: ComparisonModel) -> Iterator[str]:
    yield f"# {escaped(found.comparison)}\n"
    yield f"{escaped(subtitle(found))}\n"
    if missing := words.missing(found):
        yield "**Not finished.** Still missing:\n"
        yield from (f"- {escaped(line)}" for line in missing)
        yield ""
    if warning := words.article_warning(found):
        yield f"**{escaped(warning)}**\n"
    if table := tables.overview(found):
        yield from _table(table, "##")
    for level in found.levels:
        yield from _level(found, level)
    yield from _table(tables.conditions(found), "##")
    yield "## What the intervals are about\n"
    yield from (f"- {escaped(line)}" for line in words.about_intervals(found))
    yield f"\n## Repeat it\n\n{_code(found.command)}"
    if found.command.endswith(".toml"):
        yield f"\nThe file {escaped(found.comparison)}.toml:\n\n{_code(found.file.rstrip(), 'toml')}"


def _level(found: ComparisonModel, level: LevelModel) -> Iterator[str]:
    under = "##"
    if len(found.levels) > 1:
        yield f"## {escaped(words.level_title(level))}\n"
        under = "###"
    yield f"**{escaped(words.summary(found, level))}**\n"
    yield f"{escaped(words.level_verdict(found, level))}\n"
    searched = tables.searches(found, level)
    others = [tables.metrics(level), searched, tables.differences(found, level), *level_tables(level)]
    for table in [tables.result(found, level), *others]:
        if table is not None:
            yield from _table(table, under)


def _table(table: tables.Table, heading: str) -> Iterator[str]:
    yield f"{heading} {escaped(table.title)}\n"
    if table.about:
        yield f"{escaped(table.about)}\n"
    yield _row([escaped(column.name) for column in table.columns])
    yield _row(["---:" if column.number else "---" for column in table.columns])
    yield from (_row([_cell(cell) for cell in row]) for row in table.rows)
    yield ""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: tables.Cell) -> str:
    text, small = escaped(cell.text), escaped(cell.small)
    shown = f"**{text}**" if cell.kind in ("better", "worse") and text else text
    return f"{shown} ({small})" if small else shown


def escaped(text: str) -> str:
    """As plain text in one line, whatever it holds: no markup, no HTML, no new column."""
    flat = " ".join(printable(text).split())
    return _SPECIAL.sub(r"\\\1", flat)


def _code(text: str, language: str = "sh") -> str:
    """A fence longer than any in the text."""
    fence = "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", text)), 3)
    return f"{fence}{language}\n{text}\n{fence}\n"
