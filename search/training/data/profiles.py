"""How a data set is made imbalanced: how many images of each class stay, and which classes are the small ones.

Nothing else decides which classes are small: a `Split` carries it, and scores, notes and pictures read it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Imbalance:
    """What a profile makes of a part; both by class."""

    kept: tuple[int, ...]  # images asked for: a class may have fewer
    minority: tuple[bool, ...]  # which classes are the small ones


Profile = Callable[[Sequence[int], int], Imbalance]  # of each class's images, and how many a small class keeps


def step(counts: Sequence[int], few: int) -> Imbalance:
    """The article's: even classes keep `few` images, odd ones all."""
    minority = tuple(label % 2 == 0 for label in range(len(counts)))
    return Imbalance(tuple(few if small else count for small, count in zip(minority, counts, strict=True)), minority)


PROFILES: dict[str, Profile] = {"step": step}
FIRST = "step"  # that of every study whose files do not name one
