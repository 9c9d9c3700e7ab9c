"""What is asked of a reader, what it found, and how it tells what is wrong."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.training.errors import DataError, listed

PARTS = ("train", "validation", "test")  # by their number in `Collection.parts`
Progress = Callable[[int, int], None]  # of (files done, all files), in the caller's thread


@dataclass(frozen=True)
class Wanted:
    """How images are read."""

    size: tuple[int, int] | None  # height and width in pixels that images are stretched to; None: as they are (arrays)
    group: str | None = None  # a regular expression, see `grouped`; images with an equal match belong together
    strict: bool = False  # an image file that cannot be read is an error, not skipped
    channels: Literal[1, 3] | None = None  # None: 1 if all images are grey, else 3

    def __post_init__(self) -> None:
        """Raises ValueError for a size of less than a pixel, or another number of channels."""
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"images cannot have {self.size[0]}×{self.size[1]} pixels")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"images have 1 or 3 channels, not {self.channels}")


@dataclass(frozen=True)
class Collection:
    """All that was found, N images or vectors in the order of their files."""

    images: NDArray[Any]  # uint8 (N, height, width, 1 or 3), or float32 (N, D) for features
    labels: NDArray[np.int32]  # (N,) index into `classes`
    parts: NDArray[np.uint8]  # (N,) index into PARTS, as given; all 0 where nothing was divided
    classes: tuple[str, ...]  # sorted names of folders; those of arrays in the order of their numbers
    groups: NDArray[np.int32] | None  # (N,) images of one number belong together
    names: tuple[str, ...]  # each image's path relative to the root, with /; () for arrays
    skipped: tuple[tuple[str, str], ...]  # (relative path, reason) of files that could not be read

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """What a person finds the image by."""
        return self.names[index] if self.names else f"number {index} ({PARTS[self.parts[index]]})"


def report(source: str, problems: Sequence[str]) -> DataError:
    """One error of all problems, each on a line of its own."""
    return DataError("\n  ".join([f"{source} cannot be used as it is:", *problems]))


def numbered(keys: Sequence[Any]) -> NDArray[np.int32]:
    """(N,): the number of each key among the sorted ones; equal keys have equal numbers."""
    return np.unique(np.asarray(keys), return_inverse=True)[1].reshape(-1).astype(np.int32)


def grouped(expression: str, names: Sequence[str]) -> tuple[NDArray[np.int32], list[str]]:
    """Who belongs together, (N,), and what is wrong with the expression, if anything.

    `names` are paths below the class's folder: where no folders lie below it, just the file names. Equal are images
    whose group 1 of the match is equal, or the whole match where the expression has no group, in whatever class and
    part.
    """
    try:
        pattern = re.compile(expression)
    except re.error as error:
        return np.zeros(0, np.int32), [f"group: {expression!r} is not a regular expression: {error}"]
    found = [pattern.search(name) for name in names]
    keys = [match and match[min(pattern.groups, 1)] for match in found]
    unmatched = [name for name, key in zip(names, keys, strict=True) if key is None]
    if unmatched:
        count = len(unmatched)
        return np.zeros(0, np.int32), [
            f"group: {expression!r} is not found in {count} file name{'s' * (count > 1)}: {listed(unmatched, count)}"
        ]
    return numbered(keys) if keys else np.zeros(0, np.int32), []
