"""What CIFAR-10 and CIFAR-100 share: photographs of 32×32 pixels in a folder of pickled batches."""

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Batches:
    """How a set is packed: `title` is its name for people, `name` is Keras', `labels` is the key of its labels."""

    title: str
    name: str
    labels: bytes
    files: Mapping[Part, tuple[str, ...]]
    keras_folder: str

    def read(self, facts: DatasetFacts, data_dir: Path | None, part: Part) -> Arrays:
        """The batches of the folder that the set has, which is `data_dir` or lies in it; Keras' own without a folder.

        Raises DataError naming a bad file.
        """
        if data_dir is None:
            return read_keras_cache(self.name, part)
        inside = data_dir / str(facts.holds)
        folder = inside if inside.is_dir() else data_dir
        batches = [self._read_batch(folder / name, facts) for name in self.files[part]]
        return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])

    def _read_batch(self, path: Path, facts: DatasetFacts) -> Arrays:
        if not path.is_file():
            raise MissingDataError(
                f"{self.title} was looked for at {path} and is not there; --data-dir must hold {facts.holds}."
            )
        batch = unpickle_arrays(path)
        height, width, channels = facts.shape
        try:
            rows, labels = batch[b"data"], np.asarray(batch[self.labels])
            images = rows.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)  # plane by plane, red first
        except Exception as error:
            raise DataError(f"{path} is not a {self.title} batch ({error}); fetch the file again.") from error
        return checked(path, images, labels, facts)

    def cached(self) -> Path:
        """The folder in which Keras has the same files, once it has downloaded them."""
        return keras_cache() / self.keras_folder
