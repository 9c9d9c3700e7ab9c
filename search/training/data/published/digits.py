"""scikit-learn's handwritten digits: 1797 images of 8×8 pixels, part of the package."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.training.data.facts import DatasetFacts
from affinity_search.search.training.data.readers import Arrays, Part

TEST_EVERY = 5


def read(facts: DatasetFacts, data_dir: Path | None, part: Part) -> Arrays:
    """Pixel values 0..16 become 0..255; there is no folder to read.

    The set comes undivided. Within each class, in its order, the 5th, 10th, 15th, … image is a test image and the
    others are training images: 34 to 36 test images a class, and four times as many for training.
    """
    pixels, labels = _digits()
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rank[labels == label] = np.arange(np.sum(labels == label))
    is_test = rank % TEST_EVERY == TEST_EVERY - 1
    chosen = is_test if part == "test" else ~is_test
    images = np.rint(pixels[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, *facts.shape)
    return images, labels[chosen].astype(np.int32)


def _digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pixels (1797, 64) from 0 to 16, and labels (1797,), as scikit-learn's `load_digits` has them.

    From its file, because importing scikit-learn takes half a second.
    """
    found = find_spec("sklearn")
    if found is not None and found.origin is not None:
        file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.exists():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits  # a version that keeps the file elsewhere

    pixels, labels = load_digits(return_X_y=True)
    return pixels, labels
