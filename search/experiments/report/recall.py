"""Recall by class size: what the small classes gain or lose with each contestant."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import fmean

from affinity_search.search.experiments.document import ComparisonModel, LevelModel
from affinity_search.search.experiments.report.drawing import Axis, Drawing, shortened, text_width
from affinity_search.search.experiments.report.looks import WIDTH, Figure, Look, Looks, legend_of
from affinity_search.search.experiments.report.tables import by_size, recalls, recalls_of
from affinity_search.search.experiments.report.words import contestants_of

MOST_NAMED = 20  # classes; with more they are put together in groups
GROUPS = 10
LEFT, RIGHT, TOP, BOTTOM = 56.0, WIDTH - 14, 14.0, 300.0
TURNED = 40  # degrees
SMALL_PX = 11.0

Values = Sequence[float | None]


@dataclass(frozen=True)
class Bands:
    """The classes side by side, or groups of them, with what stands below each: a name, and a smaller second line."""

    labels: Sequence[tuple[str, str]]

    @cached_property
    def turned(self) -> bool:
        """Whether the names are too wide to stand level."""
        return any(text_width(name) > (RIGHT - LEFT) / len(self.labels) - 6 for name, _ in self.labels)

    @property
    def left(self) -> float:
        """A turned label begins to the left of its class: the first one needs room."""
        return max(LEFT, self._reach(self.labels[0], math.cos) - 20) if self.turned else LEFT

    @property
    def band(self) -> float:
        return (RIGHT - self.left) / len(self.labels)

    @property
    def below(self) -> float:
        """The height of the labels."""
        return 18 + max(self._reach(label, math.sin) for label in self.labels) if self.turned else 36.0

    def middle(self, at: int) -> float:
        return self.left + self.band * (at + 0.5)

    @staticmethod
    def _reach(label: tuple[str, str], side: Callable[[float], float]) -> float:
        return side(math.radians(TURNED)) * text_width(" · ".join(label))


def recall_by_size(found: ComparisonModel, level: LevelModel, looks: Looks, key: str) -> Figure | None:
    """Recall of every class, the largest class first; classes are put together where there are many."""
    groups = _groups(by_size(level))
    told = {one.contestant: _in_points(values, groups) for one in level.contestants if (values := recalls_of(one))}
    known = [value for values in told.values() for value in values if value is not None]
    if not known:
        return None
    bands = Bands([_label(found, level, group) for group in groups])
    drawing = Drawing(key, WIDTH, BOTTOM + bands.below + 24, "Recall by class size", _in_words(told))
    y = Axis(max(0.0, 10 * math.floor(min(known) / 10 - 0.5)), 100, BOTTOM, TOP)
    alone = all(len(group) == 1 for group in groups)
    _axes(drawing, y, bands, "class and training images" if alone else "training images of the classes in a group")
    names = [name for name in contestants_of(found) if name in told]
    gap = min(6.0, bands.band * 0.7 / len(names))
    for at, name in enumerate(names):
        shift = gap * (at - (len(names) - 1) / 2)  # beside each other, so that none hides another
        xs = [bands.middle(n) + shift for n in range(len(groups))]
        _series(drawing, y, looks[name], name, xs, told[name], bands)
    return Figure(
        "Recall by class size", _about(alone), [drawing.markup()], legend_of(looks, names), recalls(found, level)
    )


def _about(alone: bool) -> str:
    over = "over the draws" if alone else "over the draws and over classes of similar size"
    return (
        f"The share of a class's test images that are recognised, mean {over}. The classes with the most training "
        "images stand on the left."
    )


def _groups(order: Sequence[int]) -> list[list[int]]:
    """Each class alone where there are few; else neighbours in size together."""
    if len(order) <= MOST_NAMED:
        return [[at] for at in order]
    cuts = [round(part * len(order) / GROUPS) for part in range(GROUPS + 1)]
    return [list(order[start:end]) for start, end in pairwise(cuts)]


def _label(found: ComparisonModel, level: LevelModel, group: Sequence[int]) -> tuple[str, str]:
    sizes = [level.class_sizes[at] for at in group]
    if len(group) == 1:
        name = found.classes[group[0]] if group[0] < len(found.classes) else str(group[0])
        return shortened(name, 130), str(sizes[0])
    span = str(sizes[0]) if min(sizes) == max(sizes) else f"{max(sizes)}–{min(sizes)}"
    return span, f"{len(group)} classes"


def _in_points(values: Values, groups: Sequence[Sequence[int]]) -> list[float | None]:
    """Of each group."""
    found: list[float | None] = []
    for group in groups:
        known = [value for at in group if at < len(values) and (value := values[at]) is not None]
        found.append(100 * fmean(known) if known else None)
    return found


def _in_words(told: dict[str, list[float | None]]) -> str:
    ends = [(name, values[0], values[-1]) for name, values in told.items()]
    return "; ".join(
        f"{name}: {largest:.0f} % of the largest class, {smallest:.0f} % of the smallest"
        for name, largest, smallest in ends
        if largest is not None and smallest is not None
    )


def _axes(drawing: Drawing, y: Axis, bands: Bands, caption: str) -> None:
    for tick in y.ticks(6):
        drawing.line(bands.left, y(tick), RIGHT, y(tick), "grid")
        drawing.text(bands.left - 8, y(tick), f"{tick:g}", "muted", "end")
    drawing.line(bands.left, y.start, RIGHT, y.start, "muted")
    drawing.text(bands.left - 42, (y.start + y.end) / 2, "recall, %", "ink", "middle", turn=-90)
    for at, (name, size) in enumerate(bands.labels):
        x, edge = bands.middle(at), bands.left + bands.band * at
        if at:
            drawing.line(edge, y.end, edge, y.start, "grid faint")
        if bands.turned:
            drawing.text(x + 4, y.start + 12, f"{name} · {size}", "muted", "end", turn=-TURNED)
        else:
            drawing.text(x, y.start + 14, name, "ink", "middle")
            drawing.text(x, y.start + 31, shortened(size, bands.band, SMALL_PX), "muted small", "middle")
    drawing.text((bands.left + RIGHT) / 2, BOTTOM + bands.below + 14, caption, "ink", "middle")


def _series(
    drawing: Drawing, y: Axis, look: Look, name: str, xs: Sequence[float], values: Values, bands: Bands
) -> None:
    known = [
        (x, value, label) for x, value, (label, _) in zip(xs, values, bands.labels, strict=True) if value is not None
    ]
    drawing.path([(x, y(value)) for x, value, _ in known], f"{look.colour} thin", look.width * 0.6, look.dash)
    for x, value, label in known:
        drawing.marker(look.shape, x, y(value), 3.8, look.colour, f"{name}, {label}: {value:.1f} %")
