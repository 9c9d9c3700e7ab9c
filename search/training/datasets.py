"""The data sets, made imbalanced and divided as the article does it. Sets: digits, mnist, cifar10.

Training and test images are loaded by separate functions, so that a search never opens the test set.
Even-numbered classes are the minority; a study's `minority` counts test images per minority class, and training
keeps k times as many (`DatasetFacts.train_per_test`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from search.training import readers
from search.training.errors import DataError

Protocol = Literal["holdout", "article"]


@dataclass(frozen=True)
class Split:
    """Images with their labels: `images` uint8 (N, H, W, channels), `labels` int32 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, n_classes: int) -> tuple[int, ...]:
        """How many images each class has."""
        return tuple(int(count) for count in np.bincount(self.labels, minlength=n_classes))

    def take(self, chosen: NDArray[Any]) -> "Split":
        """The images at `chosen`, an index or boolean array."""
        return Split(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True)
class DatasetFacts:
    """What does not vary within a set; `shift_px` and `flip` are its augmentation, `train_per_test` is k."""

    name: str
    class_names: tuple[str, ...]
    train_per_test: int
    shift_px: int
    flip: bool

    @property
    def n_classes(self) -> int:
        return len(self.class_names)


DIGITS = tuple("0123456789")
# In the order of their labels.
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FACTS: dict[str, DatasetFacts] = {
    "digits": DatasetFacts("digits", DIGITS, train_per_test=4, shift_px=1, flip=False),
    "mnist": DatasetFacts("mnist", DIGITS, train_per_test=6, shift_px=4, flip=False),
    "cifar10": DatasetFacts("cifar10", OBJECTS, train_per_test=5, shift_px=4, flip=True),
}


def load_train(name: str, data_dir: Path | None) -> Split:
    """All training images of a set, the test images unopened; from `data_dir`, or Keras' cache if None.

    Raises DataError if the set is unknown, absent or unreadable. digits comes with scikit-learn and needs no folder.
    """
    return _load(name, data_dir, "train")


def load_test(name: str, data_dir: Path | None) -> Split:
    """All test images of a set; otherwise as `load_train`."""
    return _load(name, data_dir, "test")


def _load(name: str, data_dir: Path | None, part: readers.Part) -> Split:
    facts(name)
    if name == "digits":
        return Split(*readers.read_digits(part))
    if data_dir is None:
        return Split(*readers.read_keras_cache(name, part))
    if not data_dir.is_dir():
        raise DataError(f"The data folder {data_dir} does not exist; check --data-dir.")
    read = {"mnist": readers.read_mnist, "cifar10": readers.read_cifar10}[name]
    return Split(*read(data_dir, part))


def facts(name: str) -> DatasetFacts:
    """The facts of a set by its name. Raises DataError naming the known sets."""
    if name not in FACTS:
        raise DataError(f"There is no data set {name!r}; the sets are {', '.join(FACTS)}.")
    return FACTS[name]


def imbalance(split: Split, per_minority_class: int, n_classes: int) -> Split:
    """Keep the first `per_minority_class` images of each even class and every image of the odd ones, in order.

    Raises DataError if that is not positive or an even class has fewer.
    """
    counts = split.counts(n_classes)
    short = [label for label in range(0, n_classes, 2) if counts[label] < per_minority_class]
    if short or per_minority_class < 1:
        found = ", ".join(f"{label}: {counts[label]}" for label in range(0, n_classes, 2))
        raise DataError(
            f"{per_minority_class} images per minority class are asked for, but the even classes have {found}; "
            "change the study's `minority`."
        )
    keep = np.ones(len(split), bool)
    for label in range(0, n_classes, 2):
        keep[np.flatnonzero(split.labels == label)[per_minority_class:]] = False
    return split.take(keep)


def holdout(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Divide into (rest, held out) with every class divided alike; the same `seed` gives the same division.

    Raises DataError if a class would be missing on either side.
    """
    from sklearn.model_selection import train_test_split  # who only asks for the facts does not wait for it

    indices = np.arange(len(split))
    try:
        rest, held = train_test_split(indices, test_size=fraction, random_state=seed, stratify=split.labels)
    except ValueError as error:
        raise DataError(f"A share of {fraction} cannot be held out for validation: {error}") from error
    first, second = split.take(np.sort(rest)), split.take(np.sort(held))
    missing = sorted(set(split.labels.tolist()) - (set(first.labels.tolist()) & set(second.labels.tolist())))
    if missing:
        raise DataError(
            f"Holding out {fraction} of {len(split)} images leaves classes {missing} without images on one side; "
            "raise the study's `minority` or change `validation`."
        )
    return first, second


def search_splits(
    name: str, minority: int, validation: float, protocol: Protocol, seed: int, data_dir: Path | None
) -> tuple[Split, Split]:
    """The (training, evaluation) images of a search.

    "holdout" takes the share `validation` out of the imbalanced training images and leaves the test set unopened.
    "article" trains on all of them and evaluates on the imbalanced test set, as the article does: it flatters.
    Raises DataError for an unknown protocol, and as `load_train`, `imbalance` and `holdout` do.
    """
    known = facts(name)
    if protocol not in ("holdout", "article"):
        raise DataError(f"There is no protocol {protocol!r}; the protocols are holdout and article.")
    train = imbalance(load_train(name, data_dir), minority * known.train_per_test, known.n_classes)
    if protocol == "article":
        return train, test_split(name, minority, data_dir)
    return holdout(train, validation, seed)


def test_split(name: str, minority: int, data_dir: Path | None) -> Split:
    """The imbalanced test images: `minority` of each even class, every one of the odd classes."""
    return imbalance(load_test(name, data_dir), minority, facts(name).n_classes)
