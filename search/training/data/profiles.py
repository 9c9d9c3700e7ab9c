"""How a data set is made imbalanced: how many images of each class stay, and which classes are the small ones.

Nothing else decides which classes are small: a `Split` carries it, and scores, notes and pictures read it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Wish:
    """What a profile is asked for; each takes what it needs."""

    few: int | None = None  # images that a small class keeps
    small: Sequence[bool] | None = None  # which classes are to be small; None: the even ones
    factor: float | None = None  # images of the largest class for one of the smallest


@dataclass(frozen=True)
class Imbalance:
    """What a profile makes of a part; both by class."""

    kept: tuple[int, ...]  # images asked for: a class may have fewer
    minority: tuple[bool, ...]  # which classes are the small ones


Profile = Callable[[Sequence[int], Wish], Imbalance]  # the first are the images that each class has


def natural(counts: Sequence[int], wish: Wish) -> Imbalance:
    """Every class keeps what it has. Small are the classes with less than half of an equal share of the images."""
    return Imbalance(tuple(counts), _below_half_a_share(counts))


def step(counts: Sequence[int], wish: Wish) -> Imbalance:
    """The article's: small classes keep `few` images, the others all."""
    assert wish.few is not None, "the study's check asks for it"
    minority = tuple(wish.small) if wish.small else tuple(label % 2 == 0 for label in range(len(counts)))
    return Imbalance(tuple(wish.few if small else n for small, n in zip(minority, counts, strict=True)), minority)


def exponential(counts: Sequence[int], wish: Wish) -> Imbalance:
    """n_i = n_max · factor^(−i / (C − 1)), rounded down, i counting the C classes from the largest on.

    The long-tailed sets of Cui et al. 2019 (section 6) and Cao et al. 2019. Classes of equal size go in the order of
    their labels. A class that has fewer keeps all it has.
    """
    assert wish.factor is not None, "the study's check asks for it"
    order = np.argsort(-np.asarray(counts), kind="stable")
    largest, last = max(counts), max(len(counts) - 1, 1)
    kept = [0] * len(counts)
    for rank, label in enumerate(order.tolist()):
        kept[label] = min(counts[label], max(1, int(largest * wish.factor ** (-rank / last))))
    return Imbalance(tuple(kept), _below_half_a_share(kept))


def _below_half_a_share(counts: Sequence[int]) -> tuple[bool, ...]:
    return tuple(count < sum(counts) / len(counts) / 2 for count in counts)


PROFILES: dict[str, Profile] = {"natural": natural, "step": step, "exponential": exponential}
EARLIEST = step  # that of every study whose pictures were stored without the small classes
