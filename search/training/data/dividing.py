"""Which images are held out: for validation from training images, for the test from people's own undivided data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.training.errors import DataError


@dataclass(frozen=True)
class Fold:
    """One of `of` equal parts of the images; `number` counts from 0."""

    number: int
    of: int


def held_out(
    labels: NDArray[np.int32],
    groups: NDArray[np.int32] | None,
    share: float | Fold,
    seed: int,
    classes: Sequence[str] = (),
) -> NDArray[np.bool_]:
    """A share of the images (N,) or one fold of them, of every class alike; the same `seed` chooses the same.

    With `groups` (N,) all images of a group are on one side; then the share is 1 of a whole number of parts, and met
    as well as the groups allow. Raises DataError if a class would be missing on either side.
    """
    if groups is not None:
        fold = share if isinstance(share, Fold) else Fold(0, max(2, round(1 / share)))
        held = _group_fold(labels, groups, fold, seed)
    elif isinstance(share, Fold):
        held = _stratified_fold(labels, share, seed)
    else:
        mistake = division_mistake(np.bincount(labels)[np.unique(labels)], share)
        if mistake is not None:
            raise DataError(mistake)
        held = _stratified_share(labels, share, seed)
    chosen = np.zeros(len(labels), bool)
    chosen[held] = True
    _refuse_missing(labels, chosen, classes)
    return chosen


def _stratified_share(labels: NDArray[np.int32], share: float, seed: int) -> NDArray[np.int64]:
    """The indices of exactly those images that scikit-learn's `train_test_split` holds out with `stratify=labels`.

    It is not called, because its import took an eighth of the time from `launch` to a worker's first step.
    """
    held = math.ceil(share * len(labels))
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    random = np.random.RandomState(seed)
    left_of = _apportioned(counts, len(labels) - held, random)
    held_of = _apportioned(counts - left_of, held, random)
    found = []
    for images, left, taken in zip(_by_class(classes, counts), left_of, held_of, strict=True):
        found.append(images[random.permutation(len(images))][left : left + taken])
    return np.concatenate(found)


def _by_class(classes: NDArray[np.int64], counts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.split(np.argsort(classes, kind="stable"), np.cumsum(counts)[:-1])


def _apportioned(counts: NDArray[np.int64], drawn: int, random: np.random.RandomState) -> NDArray[np.int64]:
    """How many images of each class to draw, `drawn` in all: whole shares first, then one for each largest remainder.

    A lot decides between equal remainders.
    """
    exact = counts / counts.sum() * drawn
    found = np.floor(exact)
    remainders, missing = exact - found, int(drawn - found.sum())
    for remainder in np.unique(remainders)[::-1]:
        if missing == 0:
            break
        (equal,) = np.nonzero(remainders == remainder)
        chosen = random.choice(equal, min(len(equal), missing), replace=False)
        found[chosen] += 1
        missing -= len(chosen)
    whole: NDArray[np.int64] = found.astype(np.int64)
    return whole


def _stratified_fold(labels: NDArray[np.int32], fold: Fold, seed: int) -> NDArray[np.int64]:
    from sklearn.model_selection import StratifiedKFold

    mistake = folds_mistake(np.bincount(labels)[np.unique(labels)], fold.of)
    if mistake is not None:
        raise DataError(mistake)
    folds = StratifiedKFold(fold.of, shuffle=True, random_state=seed)
    found: NDArray[np.int64] = list(folds.split(labels, labels))[fold.number][1]
    return found


def folds_mistake(counts: Sequence[int] | NDArray[np.int64], folds: int) -> str | None:
    """Why classes of so many images cannot be divided into folds."""
    fewest = int(min(counts, default=0))
    if fewest >= folds:
        return None
    return (
        f"{folds} folds need {folds} images of every class, and the smallest class has {fewest}; raise data.minority "
        "or lower data.validation.folds"
    )


def _group_fold(labels: NDArray[np.int32], groups: NDArray[np.int32], fold: Fold, seed: int) -> NDArray[np.int64]:
    from sklearn.model_selection import StratifiedGroupKFold

    parts = fold.of
    if parts > len(np.unique(groups)):
        raise DataError(
            f"Holding out 1 of {parts} parts of the images needs {parts} groups, and there are "
            f"{len(np.unique(groups))}; change data.group, or divide the images into train, validation and test "
            "folders yourself."
        )
    if parts > np.bincount(labels).max():
        raise DataError(f"Holding out 1 of {parts} parts needs {parts} images of a class at least; add images.")
    folds = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    found: NDArray[np.int64] = list(folds.split(labels, labels, groups))[fold.number][1]
    return found


def _refuse_missing(labels: NDArray[np.int32], chosen: NDArray[np.bool_], classes: Sequence[str]) -> None:
    count = int(labels.max()) + 1
    there = np.bincount(labels, minlength=count) > 0
    for held, side in ((chosen, "held out"), (~chosen, "left")):
        absent = np.flatnonzero(there & (np.bincount(labels[held], minlength=count) == 0))
        if len(absent):
            names = ", ".join(str(classes[label]) if classes else str(label) for label in absent[:10])
            raise DataError(
                f"No image of {'class' if len(absent) == 1 else 'the classes'} {names} would be {side}: too few "
                "images, or too few groups of them. Add images, merge the class with another one, or divide the images "
                "into train, validation and test folders yourself."
            )


def division_mistake(counts: Sequence[int] | NDArray[np.int64], fraction: float) -> str | None:
    """Why a share cannot be held out of so many images of each class, so that each class has some on both sides."""
    total = int(sum(counts))
    held = math.ceil(fraction * total)
    # As `_apportioned` divides; of equal remainders each may get an image.
    shares = np.array(counts) / max(total, 1) * (total - held)
    kept = np.floor(shares).astype(int)
    remainders = shares - kept
    if left := total - held - int(kept.sum()):
        kept += remainders >= np.sort(remainders)[-left]
    fewest = min(counts, default=0)
    if 0 < fraction < 1 and held >= len(counts) and (kept > 0).all() and (kept < counts).all():
        return None
    return (
        f"Holding out {fraction:g} of {total} training images takes {held}, and the smallest class has {fewest}: "
        "some class would be left without images on one side; raise data.minority or change data.validation"
    )
