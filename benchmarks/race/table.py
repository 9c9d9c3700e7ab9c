"""What came of the race, as Markdown; and how many lines a contender's user writes."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from benchmarks.race.measure import Measured

HEAD = (
    "| job | contender | seconds in all | against ours | to the first result, s | processor, s | memory, GB | lines |"
)
_QUIET = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of(path: Path) -> int:
    """Lines of a Python file with code on them: blank ones, comments and docstrings are not counted."""
    text = path.read_text()
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _QUIET:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - _docstrings(text))


def _docstrings(text: str) -> set[int]:
    found: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            found.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return found


def rows(title: str, runs: Mapping[str, Sequence[Measured]], lines: Mapping[str, int]) -> list[str]:
    """A row for each contender, ours first. Each cell has all rounds; the ratio is of their means."""
    ours_s = mean(run.whole_s for run in next(iter(runs.values())))
    made = []
    for name, each in runs.items():
        whole = mean(run.whole_s for run in each)
        cells = [title, name, _all(f"{run.whole_s:.0f}" for run in each), f"**{whole / ours_s:.1f}**"]
        cells += [_all(f"{run.first_s:.1f}" for run in each), _all(f"{run.cpu_s:.0f}" for run in each)]
        cells += [_all(f"{run.memory / 1e9:.1f}" for run in each), str(lines[name])]
        made.append(f"| {' | '.join(cells)} |")
    return made


def _all(cells: Iterable[str]) -> str:
    return ", ".join(cells)


def verdict(title: str, runs: Mapping[str, Sequence[Measured]]) -> str:
    """Ours against the fastest of the others."""
    means = {name: mean(run.whole_s for run in each) for name, each in runs.items()}
    ours, *others = means
    best = min(others, key=lambda name: means[name])
    return f"{title}: {ours} takes {means[ours] / means[best]:.2f} of the time of the fastest rival, {best}."
