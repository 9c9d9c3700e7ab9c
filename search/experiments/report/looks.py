"""What the figures have in common: a contestant's colour, marker and line, and the keys of their legends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from affinity_search.search.experiments.document import ComparisonModel
from affinity_search.search.experiments.report.drawing import SERIES, SHAPES, Drawing
from affinity_search.search.experiments.report.tables import Table
from affinity_search.search.experiments.report.words import contestants_of

WIDTH = 760.0
_DASHES = ("", "7 3", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Figure:
    """`legend` are keys with their names; `table` has the figure's numbers for who cannot see it."""

    title: str
    about: str
    drawings: Sequence[Markup]
    legend: Sequence[tuple[Markup, str]] = ()
    table: Table | None = None


@dataclass(frozen=True)
class Look:
    """A contestant's colour, marker and line, the same in all figures."""

    colour: str
    shape: str
    dash: str
    width: float = 2.0


Looks = dict[str, Look]  # by contestant


def looks_of(found: ComparisonModel) -> Looks:
    """With more contestants than colours, line and marker tell them apart."""
    looks = {found.baseline: Look("base", "circle", "5 3", 2.5)}
    rivals = [name for name in contestants_of(found) if name != found.baseline]
    for at, name in enumerate(rivals):
        again = at // SERIES
        shape = SHAPES[(at + 1 + again) % len(SHAPES)]
        looks[name] = Look(f"s{at % SERIES}", shape, _DASHES[again % len(_DASHES)])
    return looks


def legend_of(looks: Looks, names: Sequence[str]) -> list[tuple[Markup, str]]:
    """A short piece of each line, with its name."""
    found = []
    for name in names:
        look, key = looks[name], Drawing.small(34, 14)
        key.path([(1, 7), (33, 7)], look.colour, look.width, look.dash)
        key.marker(look.shape, 17, 7, 4, look.colour)
        found.append((key.markup(), name))
    return found
