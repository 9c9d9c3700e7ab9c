"""Which images are held out: for validation from training images, for the test from people's own undivided data."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.training.errors import DataError


def held_out(
    labels: NDArray[np.int32], groups: NDArray[np.int32] | None, share: float, seed: int, classes: Sequence[str] = ()
) -> NDArray[np.bool_]:
    """A share of the images (N,), of every class alike; the same `seed` chooses the same.

    With `groups` (N,) all images of a group are on one side; then the share is 1 of a whole number of parts, and met
    as well as the groups allow. Raises DataError if a class would be missing on either side.
    """
    from sklearn.model_selection import train_test_split  # late: who only counts does not wait for it

    if groups is None:
        mistake = division_mistake(np.bincount(labels)[np.unique(labels)], share)
        if mistake is not None:
            raise DataError(mistake)
        _, held = train_test_split(np.arange(len(labels)), test_size=share, random_state=seed, stratify=labels)
    else:
        held = _held_groups(labels, groups, share, seed)
    chosen = np.zeros(len(labels), bool)
    chosen[held] = True
    _refuse_missing(labels, chosen, classes)
    return chosen


def _held_groups(labels: NDArray[np.int32], groups: NDArray[np.int32], share: float, seed: int) -> NDArray[np.int64]:
    from sklearn.model_selection import StratifiedGroupKFold

    parts = max(2, round(1 / share))
    if parts > len(np.unique(groups)):
        raise DataError(
            f"Holding out {share:g} of the images needs {parts} groups, and there are {len(np.unique(groups))}; change "
            "data.group, or divide the images into train, validation and test folders yourself."
        )
    if parts > np.bincount(labels).max():
        raise DataError(f"Holding out {share:g} needs {parts} images of a class at least; add images.")
    folds = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    found: NDArray[np.int64] = next(iter(folds.split(labels, labels, groups)))[1]
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
    # As scikit-learn divides: whole images first, the rest to the largest remainders.
    shares = (total - held) * np.array(counts) / max(total, 1)
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
