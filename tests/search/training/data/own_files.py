"""Folders of small image files, and what was read of them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from affinity_search.search.training.data.own import Wanted, read_folder

SMALL = Wanted((8, 8))
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def put(path, colour=RED, size=(8, 8), mode="RGB", **options):
    """An image of one colour, (width, height); the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def put_array(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def noise(seed, shape=(8, 8, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def two_classes(root):
    """`a/1.png` red and `b/1.png` green."""
    put(root / "a" / "1.png", RED)
    put(root / "b" / "1.png", GREEN)
    return root


def image_bytes(form):
    """A file of 64×64 pixels of noise, a few thousand bytes."""
    file = io.BytesIO()
    Image.fromarray(noise(0, (64, 64, 3))).save(file, form)
    return file.getvalue()


def read_one(root: Path, name, wanted=SMALL):
    """The pixels of `a/NAME`, which the test has written, beside a class in colour."""
    put(root / "b" / "other.png", BLUE)
    found = read_folder(root, wanted)
    assert found.skipped == ()
    return found.images[found.names.index(f"a/{name}")]
