"""Images that occur more than once: what a network has trained on tells nothing when it is tested on."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from affinity_search.search.training.data.own.collection import Collection

MOST = 20_000  # images that are compared each with each
BITS = 3  # of 64 in which near ones may differ
GREY = 6.0  # of 255, by which pixels of their small pictures may differ on average
SMALL = 16  # pixels a side, of those small pictures
PAIRS = 1_000  # near pairs that are listed; images of one colour alone would make millions
ROWS = 256  # images that are compared with all others at once
CHECKED = 4_096  # pairs whose small pictures are compared at once


@dataclass(frozen=True)
class Alike:
    """Images with equal or nearly equal pixels."""

    indices: tuple[int, ...]  # in the collection
    names: tuple[str, ...]
    across_parts: bool  # whether they lie in different parts
    across_classes: bool


@dataclass(frozen=True)
class Duplicates:
    """What was found, in the collection's order."""

    equal: tuple[Alike, ...]  # groups with equal pixels in different parts or classes
    near: tuple[Alike, ...]  # pairs that nearly look the same, in any part and class; the first `PAIRS`
    not_compared: str | None  # why near ones were not looked for, or not all are listed


def duplicates(collection: Collection) -> Duplicates:
    """Equal images across parts or classes, and pairs that differ by little, such as a picture saved once more.

    Near are two images whose 8×8 difference hashes differ in at most 3 bits, and whose pictures of 16×16 pixels differ
    by at most 6 of 255 on average; of equal images, the first alone is compared. Feature vectors are compared for
    equality alone.
    """
    digests = [blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in collection.images]
    same: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        same[digest].append(index)
    groups = (_alike(collection, indices) for indices in same.values() if len(indices) > 1)
    equal = tuple(group for group in groups if group.across_parts or group.across_classes)
    if collection.images.ndim == 2:
        return Duplicates(equal, (), "near ones are looked for among images, not among feature vectors")
    if len(collection) > MOST:
        why = f"near ones are looked for among up to {MOST:,} images, and there are {len(collection):,}"
        return Duplicates(equal, (), why)
    pairs = _near(collection.images, np.array([indices[0] for indices in same.values()]))
    more = f"the first {PAIRS:,} near pairs are listed, and there are more" if len(pairs) > PAIRS else None
    return Duplicates(equal, tuple(_alike(collection, pair) for pair in pairs[:PAIRS]), more)


def _alike(collection: Collection, indices: Iterable[int]) -> Alike:
    chosen = list(indices)
    return Alike(
        tuple(chosen),
        tuple(map(collection.name, chosen)),
        len(set(collection.parts[chosen].tolist())) > 1,
        len(set(collection.labels[chosen].tolist())) > 1,
    )


def _near(images: NDArray[np.uint8], chosen: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Pairs (lower index, higher index) among the chosen images, in that order; not many more than `PAIRS`."""
    hashes = _hashes(images, chosen)
    small = np.stack([_shrunk(images[index], SMALL, SMALL) for index in chosen]).astype(np.int16)
    found: list[tuple[int, int]] = []
    for first, second in _candidates(hashes):
        near = np.abs(small[first] - small[second]).mean(axis=(1, 2)) <= GREY
        found += zip(chosen[first[near]].tolist(), chosen[second[near]].tolist(), strict=True)
        if len(found) > PAIRS:
            break
    return found


def _candidates(hashes: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions of pairs whose hashes differ in few bits, some thousands at a time."""
    for start in range(0, len(hashes), ROWS):
        differ: NDArray[Any] = np.bitwise_count(hashes[start : start + ROWS, None] ^ hashes[None, start:])
        first, second = np.nonzero(np.triu(differ <= BITS, k=1))
        for some in range(0, len(first), CHECKED):
            yield start + first[some : some + CHECKED], start + second[some : some + CHECKED]


def _hashes(images: NDArray[np.uint8], chosen: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(N,): of each chosen image 64 bits, whether a pixel is brighter than its neighbour in a picture of 8×9."""
    small = np.stack([_shrunk(images[index], 8, 9) for index in chosen])
    bits = (small[:, :, 1:] > small[:, :, :-1]).reshape(len(chosen), 64)
    return np.packbits(bits, axis=1).view(np.uint64).reshape(-1)


def _shrunk(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(image[..., 0]) if image.shape[2] == 1 else Image.fromarray(image).convert("L")
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))
