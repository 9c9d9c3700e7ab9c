"""CIFAR-10: photographs of 32×32 pixels in a folder of pickled batches."""

from pathlib import Path

import numpy as np

from affinity_search.search.training.data.facts import DatasetFacts
from affinity_search.search.training.data.readers import (
    Arrays,
    Part,
    checked,
    keras_cache,
    read_keras_cache,
    unpickle_arrays,
)
from affinity_search.search.training.errors import DataError, MissingDataError

FILES: dict[Part, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}


def read(facts: DatasetFacts, data_dir: Path | None, part: Part) -> Arrays:
    """The batches of `cifar-10-batches-py`, which is `data_dir` or lies in it; Keras' own without a folder.

    Raises DataError naming a bad file.
    """
    if data_dir is None:
        return read_keras_cache("cifar10", part)
    inside = data_dir / str(facts.holds)
    folder = inside if inside.is_dir() else data_dir
    batches = [_read_batch(folder / name, facts) for name in FILES[part]]
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def _read_batch(path: Path, facts: DatasetFacts) -> Arrays:
    if not path.is_file():
        raise MissingDataError(
            f"CIFAR-10 was looked for at {path} and is not there; --data-dir must hold {facts.holds}."
        )
    batch = unpickle_arrays(path)
    height, width, channels = facts.shape
    try:
        rows, labels = batch[b"data"], np.asarray(batch[b"labels"])
        images = rows.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)  # stored plane by plane, red first
    except Exception as error:
        raise DataError(f"{path} is not a CIFAR-10 batch ({error}); fetch the file again.") from error
    return checked(path, images, labels, facts)


def cached() -> Path:
    """The folder in which Keras has the same files, once it has downloaded them."""
    return keras_cache() / "cifar-10-batches-py-target"
