"""What readers of data sets share: reading image files safely, so that nothing in a data file can run code.

Readers return (images, labels): uint8 (N, H, W, channels) and int32 (N,), in the file's order. `part` is "train" or
"test", and only that part's files or arrays are opened.
"""

import contextlib
import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from affinity_search.search import devices
from affinity_search.search.training.data.facts import DatasetFacts
from affinity_search.search.training.errors import DataError

Part = Literal["train", "test"]
Arrays = tuple[NDArray[np.uint8], NDArray[np.int32]]


def checked(path: Path, images: NDArray[Any], labels: NDArray[Any], facts: DatasetFacts) -> Arrays:
    """What was read of the file. Raises DataError if it is not what the set's images and labels are."""
    last = facts.n_classes - 1
    fits = images.dtype == np.uint8 and images.shape[1:] == facts.shape and labels.shape == images.shape[:1]
    if not fits or len(labels) == 0 or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > last:
        raise DataError(
            f"{path} holds {images.dtype} images of shape {images.shape} and labels of shape {labels.shape}, "
            f"not uint8 images {facts.shape} with one label 0..{last} each; fetch the file again."
        )
    return np.ascontiguousarray(images), labels.astype(np.int32)


def unpickle_arrays(path: Path) -> Any:
    """Load a pickle of plain types and NumPy arrays, Python 2's included (text becomes bytes).

    Raises DataError naming the file if it asks for anything else, or is damaged.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly anything: EOFError, IndexError, ValueError, ...
        raise DataError(f"{path} is not a readable pickle of arrays: {error}; fetch the file again.") from error


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into the old pickle protocols; other codecs have no business there."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"refused codec {encoding!r}")
    return text.encode("latin1")


def _array_builders() -> dict[tuple[str, str], Callable[..., Any]]:
    """What NumPy 1 and 2 pickles name for rebuilding an array; taken from an array, as they are private there."""
    pickled: tuple[Any, ...] = (np.zeros(1).__reduce__(), np.zeros(1).__reduce_ex__(5))
    reconstruct, from_buffer = (parts[0] for parts in pickled)
    builders: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode_latin1,
    }
    for core in ("numpy.core", "numpy._core"):
        builders[f"{core}.multiarray", "_reconstruct"] = reconstruct
        builders[f"{core}.numeric", "_frombuffer"] = from_buffer
    return builders


class _ArrayUnpickler(pickle.Unpickler):
    _builders = _array_builders()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._builders[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused {module}.{name}") from None


def keras_cache() -> Path:
    """The folder into which Keras downloads data sets."""
    return devices.keras_home() / "datasets"


def read_keras_cache(name: str, part: Part) -> Arrays:
    """What `keras.datasets` downloads or has in its cache. Raises DataError if there is neither network nor cache."""
    devices.import_keras()
    import keras

    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints its progress; stdout is for our data
            halves = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise DataError(
            f"{name} is not in the Keras cache {keras_cache()} and could not be downloaded ({error}); "
            "give the folder that holds it with --data-dir."
        ) from error
    images, labels = halves[0 if part == "train" else 1]
    images = images[..., None] if images.ndim == 3 else images
    return images.astype(np.uint8), labels.reshape(-1).astype(np.int32)
