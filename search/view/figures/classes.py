"""How classes are shown in pictures: by name and colour, or by number where there are many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affinity_search.search.view.figures.canvas import MAJORITY, MINORITY, count_axis

if TYPE_CHECKING:
    from matplotlib.axis import Axis

MOST_NAMED = 20  # classes; the names of more would cover each other


@dataclass(frozen=True)
class Class:
    """The name of a class, and whether it is a small one."""

    name: str
    small: bool

    @property
    def colour(self) -> str:
        return MINORITY if self.small else MAJORITY


def are_named(classes: Sequence[Class]) -> bool:
    """Whether a picture has room for the name of each."""
    return len(classes) <= MOST_NAMED


def name_axis(axis: Axis, classes: Sequence[Class], label: str, *, below: bool) -> None:
    """Write the classes along an axis, below or beside it, each in its colour; numbers alone where there are many."""
    if not are_named(classes):
        axis.set_label_text(f"{label} ({len(classes)}, by number)")
        count_axis(axis)
        return
    names = [one.name for one in classes]
    axis.set_label_text(label)
    axis.set_ticks(range(len(names)), names, **(_slant(names) if below else {}))
    for text, one in zip(axis.get_ticklabels(), classes, strict=True):
        text.set_color(one.colour)


def _slant(names: Sequence[str]) -> dict[str, Any]:
    """Options for names of classes below an axis: words are turned so that they do not overlap."""
    return {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 2 else {}
