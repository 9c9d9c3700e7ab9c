"""MNIST: handwritten digits of 28×28 pixels in one NumPy file."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.training.data.facts import DatasetFacts
from affinity_search.search.training.data.readers import Arrays, Part, checked, keras_cache, read_keras_cache
from affinity_search.search.training.errors import DataError, MissingDataError


def read(facts: DatasetFacts, data_dir: Path | None, part: Part) -> Arrays:
    """`mnist.npz` in `data_dir`, without pickles; Keras' own without one.

    Raises DataError if it is absent, unreadable or of another shape.
    """
    if data_dir is None:
        return read_keras_cache("mnist", part)
    path = data_dir / str(facts.holds)
    if not path.is_file():
        raise MissingDataError(f"MNIST was looked for at {path} and is not there; --data-dir must hold {path.name}.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not a readable {path.name}: no whole zip file; fetch the file again.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = _array(arrays, f"x_{part}"), _array(arrays, f"y_{part}")
    except Exception as error:  # a damaged file raises errors of zip, zlib, NumPy and the system
        raise DataError(f"{path} is not a readable {path.name}: {error}; fetch the file again.") from error
    return checked(path, images[..., None] if images.ndim == 3 else images, labels, facts)


def _array(arrays: Any, name: str) -> NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"it holds no array {name}, but {', '.join(arrays) or 'nothing'}")
    try:
        found: NDArray[Any] = arrays[name]
    except ValueError as error:
        # NumPy's own advice here is to load pickles, which would run whatever code the file holds.
        raise ValueError(f"its {name} is no plain array of numbers") from error
    return found


def cached() -> Path:
    """The folder in which Keras has the same file, once it has downloaded it."""
    return keras_cache()
