"""How large the images of a folder are, before anything is decoded."""

import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from affinity_search.search.training.data.own.collection import PARTS, Progress
from affinity_search.search.training.data.own.decode import Unreadable, opened
from affinity_search.search.training.data.own.folder import told
from affinity_search.search.training.data.own.scan import File, scan

TURNED = (5, 6, 7, 8)  # EXIF orientations of images that lie on their side
ORIENTATION = 0x0112
EXIF_IN_HEADER = ("JPEG", "MPO", "WEBP")  # that of other formats may lie behind the pixels


@dataclass(frozen=True)
class ClassSizes:
    """Of one class; sizes in pixels, upright, as (smallest, median, largest)."""

    name: str
    counts: tuple[int, int, int]  # images in each of PARTS; all in the first where nothing is divided
    height: tuple[int, int, int]
    width: tuple[int, int, int]

    @property
    def images(self) -> int:
        """In all parts."""
        return sum(self.counts)


@dataclass(frozen=True)
class Sizes:
    """Of a folder. An image that ends in the middle counts: only its pixels would tell."""

    classes: tuple[ClassSizes, ...]  # sorted by name
    divided: bool  # whether there are folders of parts
    skipped: tuple[tuple[str, str], ...]  # (relative path, reason) of files that are no images


def sizes(root: Path, progress: Progress | None = None) -> Sizes:
    """Read the headers of all images. Raises DataError as `read_folder` does, with a line for each problem."""
    found = scan(root)
    measured: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    skipped = list(found.skipped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `folder`
        for file, size in zip(found.files, told(found.files, _size, progress), strict=True):
            if isinstance(size, str):
                skipped.append((file.name, size))
            else:
                measured[file.class_name].append((*size, file.part))
    unreadable = sorted({file.class_name for file in found.files} - measured.keys())
    problems = [f"class {name} has no images that can be read" for name in unreadable]
    if problems or found.problems:
        raise found.refuse(*problems)
    skipped.sort(key=lambda entry: entry[0].split("/"))
    classes = tuple(_summary(name, np.array(measured[name])) for name in sorted(measured))
    return Sizes(classes, found.divided, tuple(skipped))


def _summary(name: str, rows: "np.ndarray[tuple[int, int], np.dtype[np.int64]]") -> ClassSizes:
    """`rows` (N, 3): height, width, part."""
    counts = np.bincount(rows[:, 2], minlength=len(PARTS))
    height, width = (
        (int(column.min()), int(np.median(column)), int(column.max())) for column in (rows[:, 0], rows[:, 1])
    )
    return ClassSizes(name, (int(counts[0]), int(counts[1]), int(counts[2])), height, width)


def _size(file: File) -> tuple[int, int] | str:
    try:
        with opened(file.path) as image:
            turned = _orientation(image) in TURNED
            return (image.width, image.height) if turned else (image.height, image.width)
    except Unreadable as reason:
        return str(reason)


def _orientation(image: Image.Image) -> int | None:
    if image.format not in EXIF_IN_HEADER:
        return None
    try:
        found: int | None = image.getexif().get(ORIENTATION)
    except Exception:  # EXIF that cannot be read turns nothing
        return None
    return found
