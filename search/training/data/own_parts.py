"""People's own data: what they are, and their parts for training and for the test."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.training.data.dividing import held_out
from affinity_search.search.training.data.facts import DatasetFacts, OwnFacts
from affinity_search.search.training.data.own.arrays import read_arrays, read_features
from affinity_search.search.training.data.own.collection import PARTS, Collection, Progress, Wanted
from affinity_search.search.training.data.own.folder import read_folder
from affinity_search.search.training.data.readers import Part
from affinity_search.search.training.errors import DataError, MissingDataError, listed

TRAIN, VALIDATION, TEST = range(len(PARTS))  # in `Collection.parts`
# One for all studies: the same images are for the test, whatever a study's own seed is.
TEST_SEED = 0
Bools = NDArray[np.bool_]
# Images or vectors, labels, (unknown) minority, groups, and which are for validation: as a `Split` has them.
OwnPart = tuple[NDArray[Any], NDArray[np.int32], tuple[bool, ...], NDArray[np.int32] | None, Bools | None]


# Each is given where the data lie, how they are wanted, and whom it may tell how far it is.
READERS: dict[str, Callable[[Path, Wanted, Progress | None], Collection]] = {
    "folder": read_folder,
    "npz": lambda where, wanted, _: read_arrays(where, wanted),
    "features": lambda where, wanted, _: read_features(where),
}


@dataclass(frozen=True)
class Found:
    """What own data are: by class the images of each part, and SHA-256 (hex) over all of them."""

    digest: str
    shape: tuple[int, ...]  # of one image or vector
    classes: tuple[str, ...]
    train: tuple[int, ...]
    validation: tuple[int, ...]  # empty where none were given
    test: tuple[int, ...]
    test_given: bool


def _read(name: str, where: Path, own: OwnFacts) -> Collection:
    try:
        return READERS[name](where, Wanted(own.size, own.group), None)
    except MissingDataError as error:
        raise MissingDataError(f"{error} If the data lie elsewhere, name the place with --data-dir.") from None


def found_at(name: str, where: Path, own: OwnFacts) -> Found:
    """What the data of the set `name` are. Raises DataError if they are not there, or cannot be used."""
    return found_in(_read(name, where, own), own)


def found_in(collection: Collection, own: OwnFacts) -> Found:
    """What the data are. Raises DataError if they cannot be divided, or a class lacks images for training or test."""
    given = bool((collection.parts == TEST).any())
    is_test = _is_test(collection, None if given else own.test)
    is_validation = collection.parts == VALIDATION
    counts = [_counts(collection, chosen) for chosen in (~is_test & ~is_validation, is_validation, is_test)]
    for count, use in zip(counts, ("training", "validation", "the test"), strict=True):
        lacking = [name for name, n in zip(collection.classes, count, strict=True) if n == 0]
        if lacking and sum(count):
            raise DataError(f"There are no images for {use} of {listed(lacking)}; add some, or leave the class out.")
    train, validation, test = counts
    return Found(
        _digest(collection),
        collection.images.shape[1:],
        collection.classes,
        train,
        validation if sum(validation) else (),
        test,
        given,
    )


def own_part(facts: DatasetFacts, where: Path | None, part: Part) -> OwnPart:
    """The images of a part, as the facts divide them. Raises DataError if they are missing, or have other classes."""
    assert facts.own is not None
    assert where is not None, "own data have a path"
    collection = _read(facts.name, where, facts.own)
    if facts.classes != collection.classes:
        here, there = (listed(classes) for classes in (collection.classes, facts.classes))
        raise DataError(
            f"{where} holds other classes than the study was made for: {here} instead of {there}; name the study's own "
            "data with --data-dir."
        )
    is_test = _is_test(collection, facts.own.test)
    chosen = is_test if part == "test" else ~is_test
    groups = None if collection.groups is None else collection.groups[chosen]
    validation = (collection.parts == VALIDATION)[chosen]
    return collection.images[chosen], collection.labels[chosen], (), groups, validation if validation.any() else None


def _is_test(collection: Collection, share: float | None) -> Bools:
    """Those that were given for the test, or a share of the training images."""
    if share is None:
        return np.equal(collection.parts, TEST)
    pool = collection.parts == TRAIN
    groups = None if collection.groups is None else collection.groups[pool]
    chosen = np.zeros(len(pool), bool)
    chosen[pool] = held_out(collection.labels[pool], groups, share, TEST_SEED, collection.classes)
    return chosen


def _counts(collection: Collection, chosen: Bools) -> tuple[int, ...]:
    return tuple(np.bincount(collection.labels[chosen], minlength=len(collection.classes)).tolist())


def _digest(collection: Collection) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(collection.images).data)
    for values in (collection.labels, collection.parts, collection.groups):
        if values is not None:
            digest.update(np.ascontiguousarray(values, "<i4").data)
    digest.update("\0".join(collection.classes).encode())
    return digest.hexdigest()
