"""How classes are shown in pictures: by name and colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affinity_search.search.view.figures.canvas import MAJORITY, MINORITY

if TYPE_CHECKING:
    from matplotlib.text import Text


@dataclass(frozen=True)
class Class:
    """The name of a class, and whether it is a small one."""

    name: str
    small: bool

    @property
    def colour(self) -> str:
        return MINORITY if self.small else MAJORITY


def slant(names: Sequence[str]) -> dict[str, Any]:
    """Options for names of classes below an axis: words are turned so that they do not overlap."""
    return {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 2 else {}


def tint(labels: Sequence[Text], classes: Sequence[Class]) -> None:
    """Give each class's name its colour."""
    for label, one in zip(labels, classes, strict=True):
        label.set_color(one.colour)
