"""Images and labels of each data set, made imbalanced and divided."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from affinity_search.search.training.data.facts import DatasetFacts
from affinity_search.search.training.data.published import cifar10, cifar100, digits, mnist
from affinity_search.search.training.data.readers import Arrays, Part


@dataclass(frozen=True)
class Reader:
    """How a set is read; the set itself is declared by whoever names it (a study's are in `studies/data.py`).

    `read` is given the folder that holds the set, or None where the set comes from by itself, and opens that part's
    files or arrays alone. `cached` is the folder that holds the same files then; None where there are none.
    """

    read: Callable[[DatasetFacts, Path | None, Part], Arrays]
    cached: Callable[[], Path] | None = None


READERS = {
    "digits": Reader(digits.read),
    "mnist": Reader(mnist.read, mnist.cached),
    "cifar10": Reader(cifar10.BATCHES.read, cifar10.BATCHES.cached),
    "cifar100": Reader(cifar100.BATCHES.read, cifar100.BATCHES.cached),
}
