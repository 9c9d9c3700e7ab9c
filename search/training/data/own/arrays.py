"""Images and feature vectors from NumPy's files, see `npz`."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from affinity_search.search.training.data.own.collection import Collection, Wanted, report
from affinity_search.search.training.data.own.decode import pixels
from affinity_search.search.training.data.own.npz import Found, array_in, found_in, opened
from affinity_search.search.training.errors import listed

MAX_VALUES = 100_000  # of a feature vector


def read_arrays(path: Path, wanted: Wanted) -> Collection:
    """All images of the file, part by part: bytes (N, height, width), or with 1 or 3 channels at the end.

    They are stretched to the wanted size if there is one, and keep their channels unless others are wanted.
    Raises DataError with a line for each thing that is wrong.
    """
    found = found_in(path, ["images"])
    if wanted.group is not None:
        found.problems.append("group: arrays have no file names; save an array `groups` beside the labels")
    for name, images in zip(found.names, found.inputs, strict=True):
        found.problems += [f"{name} {mistake}" for mistake in _image_mistakes(images)]
    found.inputs = [images[..., None] if images.ndim == 3 else images for images in found.inputs]
    _same_shapes(found)
    if found.problems:
        raise report(str(path), found.problems)
    return _collection(found, _as_wanted(_joined(found), wanted))


def read_features(path: Path) -> Collection:
    """All vectors of the file, part by part, as float32 (N, D); 1 ≤ D ≤ 100,000.

    Raises DataError with a line for each thing that is wrong, NaN and infinite values among it.
    """
    found = found_in(path, ["features"])
    for position, (name, vectors) in enumerate(zip(found.names, found.inputs, strict=True)):
        mistakes = _shape_mistakes(vectors)
        if not mistakes:
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and is found below
                found.inputs[position] = vectors.astype(np.float32, copy=False)
            mistakes = _value_mistakes(found.inputs[position])
        found.problems += [f"{name} {mistake}" for mistake in mistakes]
    _same_shapes(found)
    if found.problems:
        raise report(str(path), found.problems)
    return _collection(found, _joined(found))


def read_vectors(path: Path, length: int) -> NDArray[np.float32]:
    """Vectors without labels, (N, `length`), N above 0: an array `features` or `x`, or the file's only one.

    Raises DataError if the file cannot be read, or holds something else.
    """
    found = Found()
    with opened(path) as arrays:
        known = [each for each in ("features", "x") if each in arrays] or list(arrays)
        if len(known) != 1:
            held = listed(known) or "nothing"
            raise report(str(path), [f"it holds {held}; call the array of vectors features"])
        vectors = array_in(found, arrays, known[0])
    if vectors is not None:
        mistakes = _shape_mistakes(vectors)
        if not mistakes and (vectors.shape[1] != length or not len(vectors)):
            mistakes = [f"has the shape {vectors.shape}; the model takes (N, {length})"]
        if not mistakes:
            with np.errstate(over="ignore"):
                vectors = vectors.astype(np.float32, copy=False)
            mistakes = _value_mistakes(vectors)
        found.problems += [f"{known[0]} {mistake}" for mistake in mistakes]
    if vectors is None or found.problems:
        raise report(str(path), found.problems)
    return vectors


def _collection(found: Found, inputs: NDArray[Any]) -> Collection:
    labels = np.concatenate(found.labels).astype(np.int32)
    return Collection(inputs, labels, found.part_numbers(), found.classes, found.group_numbers(), (), ())


def _joined(found: Found) -> NDArray[Any]:
    inputs, found.inputs = found.inputs, []
    return np.ascontiguousarray(inputs[0]) if len(inputs) == 1 else np.concatenate(inputs)


def _same_shapes(found: Found) -> None:
    shapes = {inputs.shape[1:] for inputs in found.inputs}
    if len(shapes) > 1:
        each = (f"{name} {'×'.join(map(str, a.shape[1:]))}" for name, a in zip(found.names, found.inputs, strict=True))
        found.problems.append(f"the parts differ in shape: {listed(each, len(found.inputs))}")


def _image_mistakes(images: NDArray[Any]) -> list[str]:
    mistakes = []
    if images.dtype != np.uint8:
        mistakes.append(_dtype_mistake(images))
    shape = images.shape
    if len(shape) not in (3, 4) or 0 in shape:
        mistakes.append(f"has the shape {shape}, not (N, height, width) or (N, height, width, channels)")
    elif len(shape) == 4 and shape[3] not in (1, 3):
        if shape[1] in (1, 3):
            mistakes.append(f"has the shape {shape}, channels before pixels; save numpy.moveaxis(array, 1, -1)")
        elif shape[3] == 4:
            mistakes.append("has 4 channels; what lies under clear pixels is for you to say: save 3 channels")
        else:
            mistakes.append(f"has {shape[3]} channels, not 1 or 3")
    return mistakes


def _dtype_mistake(images: NDArray[Any]) -> str:
    kind = images.dtype.kind
    if kind == "f" and images.size:
        low, high = float(images.min()), float(images.max())
        if low >= 0 and high <= 1:
            return f"holds {images.dtype} from 0 to 1, not bytes; save numpy.rint(255 * array).astype('uint8')"
        return (
            f"holds {images.dtype} from {low:g} to {high:g}, not bytes; scale black to 0 and white to 255, and save "
            "numpy.rint(array).astype('uint8')"
        )
    if kind == "b":
        return "holds bool, not bytes; save 255 * array.astype('uint8')"
    if images.dtype == np.uint16:
        return "holds uint16, not bytes; if white is 65535, save (array // 257).astype('uint8')"
    return f"holds {images.dtype}, not bytes; scale black to 0 and white to 255, and save array.astype('uint8')"


def _shape_mistakes(vectors: NDArray[Any]) -> list[str]:
    if vectors.dtype.kind != "f":
        return [f"holds {vectors.dtype}, not floating-point numbers; save array.astype('float32')"]
    if vectors.ndim != 2:
        return [f"has the shape {vectors.shape}, not (N, D): one vector for each label"]
    if not 1 <= vectors.shape[1] <= MAX_VALUES:
        return [f"has vectors of {vectors.shape[1]} values; there may be 1 to {MAX_VALUES:,}"]
    return []


def _value_mistakes(vectors: NDArray[np.float32]) -> list[str]:
    bad = ~np.isfinite(vectors)
    count = int(bad.sum())
    if not count:
        return []
    rows = np.flatnonzero(bad.any(axis=1))
    return [
        f"has {count} values that are NaN, infinite or too large for 32 bits, in rows {listed(rows)} (the "
        "first row is 0)"
    ]


def _as_wanted(images: NDArray[np.uint8], wanted: Wanted) -> NDArray[np.uint8]:
    size = wanted.size or (images.shape[1], images.shape[2])
    channels = wanted.channels or images.shape[3]
    if images.shape[1:] == (*size, channels):
        return images
    made = np.empty((len(images), *size, channels), np.uint8)
    for number, image in enumerate(images):
        # One channel is spread over three here, where three are wanted.
        made[number] = pixels(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image), size, wanted.channels)
    return made
