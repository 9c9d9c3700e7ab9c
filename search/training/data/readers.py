"""Reading image files safely: nothing in a data file can run code.

Each function returns (images, labels): uint8 (N, H, W, channels) and int32 (N,), in the file's order. `part` is
"train" or "test", and only that part's files or arrays are opened.
"""

import contextlib
import io
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from affinity_search.search import devices
from affinity_search.search.training.errors import DataError, MissingDataError

Part = Literal["train", "test"]
Arrays = tuple[NDArray[np.uint8], NDArray[np.int32]]

CIFAR_FOLDER = "cifar-10-batches-py"
CIFAR_FILES: dict[Part, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
DIGITS_TEST_EVERY = 5


def read_digits(part: Part) -> Arrays:
    """scikit-learn's 1797 embedded 8×8 images; pixel values 0..16 become 0..255.

    The set comes undivided. Within each class, in its order, the 5th, 10th, 15th, … image is a test image and the
    others are training images: 34 to 36 test images a class, and four times as many for training.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rank[labels == label] = np.arange(np.sum(labels == label))
    is_test = rank % DIGITS_TEST_EVERY == DIGITS_TEST_EVERY - 1
    chosen = is_test if part == "test" else ~is_test
    images = np.rint(pixels[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return images, labels[chosen].astype(np.int32)


def read_mnist(data_dir: Path, part: Part) -> Arrays:
    """`mnist.npz` in `data_dir`, without pickles. Raises DataError if it is absent, unreadable or of another shape."""
    path = data_dir / "mnist.npz"
    if not path.is_file():
        raise MissingDataError(f"MNIST was looked for at {path} and is not there; --data-dir must hold mnist.npz.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not a readable mnist.npz: no whole zip file; fetch the file again.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = _array(arrays, f"x_{part}"), _array(arrays, f"y_{part}")
    except Exception as error:  # a damaged file raises errors of zip, zlib, NumPy and the system
        raise DataError(f"{path} is not a readable mnist.npz: {error}; fetch the file again.") from error
    return _checked(path, images[..., None] if images.ndim == 3 else images, labels, (28, 28, 1))


def _array(arrays: Any, name: str) -> NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"it holds no array {name}, but {', '.join(arrays) or 'nothing'}")
    try:
        found: NDArray[Any] = arrays[name]
    except ValueError as error:
        # NumPy's own advice here is to load pickles, which would run whatever code the file holds.
        raise ValueError(f"its {name} is no plain array of numbers") from error
    return found


def read_cifar10(data_dir: Path, part: Part) -> Arrays:
    """The batches of `cifar-10-batches-py`, which is `data_dir` or lies in it. Raises DataError naming a bad file."""
    inside = data_dir / CIFAR_FOLDER
    folder = inside if inside.is_dir() else data_dir
    batches = [_read_batch(folder / name) for name in CIFAR_FILES[part]]
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def _read_batch(path: Path) -> Arrays:
    if not path.is_file():
        raise MissingDataError(
            f"CIFAR-10 was looked for at {path} and is not there; --data-dir must hold {CIFAR_FOLDER}."
        )
    batch = unpickle_arrays(path)
    try:
        rows, labels = batch[b"data"], np.asarray(batch[b"labels"])
        images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # stored plane by plane, red first
    except Exception as error:
        raise DataError(f"{path} is not a CIFAR-10 batch ({error}); fetch the file again.") from error
    return _checked(path, images, labels, (32, 32, 3))


def _checked(path: Path, images: NDArray[Any], labels: NDArray[Any], shape: tuple[int, int, int]) -> Arrays:
    fits = images.dtype == np.uint8 and images.shape[1:] == shape and labels.shape == images.shape[:1]
    if not fits or len(labels) == 0 or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9:
        raise DataError(
            f"{path} holds {images.dtype} images of shape {images.shape} and labels of shape {labels.shape}, "
            f"not uint8 images {shape} with one label 0..9 each; fetch the file again."
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


def read_keras_cache(name: str, part: Part) -> Arrays:
    """What `keras.datasets` downloads or has in its cache. Raises DataError if there is neither network nor cache."""
    devices.import_keras()
    import keras

    loader = {"mnist": keras.datasets.mnist, "cifar10": keras.datasets.cifar10}[name]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints its progress; stdout is for our data
            halves = loader.load_data()
    except Exception as error:  # Keras raises a bare Exception for a failed download
        cache = devices.keras_home() / "datasets"
        raise DataError(
            f"{name} is not in the Keras cache {cache} and could not be downloaded ({error}); "
            "give the folder that holds it with --data-dir."
        ) from error
    images, labels = halves[0 if part == "train" else 1]
    images = images[..., None] if images.ndim == 3 else images
    return images.astype(np.uint8), labels.reshape(-1).astype(np.int32)
