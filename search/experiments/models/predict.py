"""Classes and scores of new images or vectors, by a model that `train` wrote. Work is done in parts of bounded size."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affinity_search.search.training.errors import DataError, MissingDataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from affinity_search.search.devices import Device
    from affinity_search.search.training.data.own import File, Progress

PART_BYTES = 1 << 26  # pixels of a part that is in memory at once; what the network makes of a batch comes on top
PART_IMAGES = 1024
About = Mapping[str, Any]
LeftOut = Callable[[str, str], None]  # told of (path, reason)


@dataclass(frozen=True)
class Predicted:
    """Of one image or vector."""

    path: str
    label: int
    runner_up: int
    scores: NDArray[np.float32]  # (C,)


class Images:
    """Image files, given one by one or as folders, which are walked; no class folders are needed."""

    def __init__(self, paths: Sequence[Path], about: About, left_out: LeftOut) -> None:
        """Find the files; none is opened. Raises DataError if a path is not there, or there is no file at all."""
        self._shape = tuple(about["input"]["shape"])
        self._left_out = left_out
        self._given = {os.fspath(path) for path in paths}
        self.files = _files(paths, left_out)
        if not self.files:
            raise DataError(f"there is no file in {', '.join(map(str, paths[:5]))}; name images, or a folder of them")

    def __len__(self) -> int:
        return len(self.files)

    def parts(self, batch: int) -> Iterator[tuple[int, list[str], NDArray[Any]]]:
        """(files seen so far, paths, images uint8 (N, H, W, channels)), part by part."""
        from affinity_search.search.training.data.own import Wanted, read_files

        height, width, channels = self._shape
        wanted = Wanted((height, width), channels=channels)
        size = part_size(height * width * channels, batch)
        for start in range(0, len(self.files), size):
            files = self.files[start : start + size]
            images, unread = read_files(files, wanted, cached=False)
            for number, reason in unread.items():
                self._tell(files[number], reason)
            yield start + len(files), [each.path for n, each in enumerate(files) if n not in unread], images

    def _tell(self, file: File, reason: str) -> None:
        """What is no image and does not say so is nobody's loss, unless it was given by its name."""
        from affinity_search.search.training.data.own.decode import NO_IMAGE, called_image

        if reason != NO_IMAGE or called_image(file.name) or file.path in self._given:
            self._left_out(file.path, reason)


class Vectors:
    """The rows of .npz files, each with an array of vectors (N, D)."""

    def __init__(self, paths: Sequence[Path], about: About) -> None:
        """Read them. Raises DataError for a file that is not there or holds no vectors of the model's length."""
        from affinity_search.search.training.data.own import read_vectors

        (length,) = about["input"]["shape"]
        self._read = [(path, read_vectors(path, length)) for path in paths]

    def __len__(self) -> int:
        return sum(len(vectors) for _, vectors in self._read)

    def parts(self, batch: int) -> Iterator[tuple[int, list[str], NDArray[Any]]]:
        """As `Images.parts`; a row's path is `FILE:ROW`, the first row being 0."""
        done = 0
        for path, vectors in self._read:
            size = part_size(4 * vectors.shape[1], batch)
            for start in range(0, len(vectors), size):
                part = vectors[start : start + size]
                done += len(part)
                yield done, [f"{path}:{start + row}" for row in range(len(part))], part


class Forward:
    """A model's class scores in batches of one size, so that it is compiled once."""

    def __init__(self, device: Device, model: Any, batch: int) -> None:
        """`batch` is 1 or more; the device's replicas share it evenly, so it may be a little more."""
        self._predictor = device.predictor(model)
        self._size = -(-batch // device.replicas()) * device.replicas()

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """(N, C) of images or vectors (N, …), N at least 1."""
        import numpy as np

        scores = []
        for start in range(0, len(values), self._size):
            part = values[start : start + self._size]
            whole = part if len(part) == self._size else np.resize(part, (self._size, *part.shape[1:]))
            scores.append(self._predictor(whole)[: len(part)])
        return np.concatenate(scores)


def opened(path: Path) -> Any:
    """The Keras model of a file that `train` wrote, on the device that is configured. Raises as `load_model`."""
    from affinity_search.search.training.networks.saving import load_model

    return load_model(path)


def inputs_for(about: About, paths: Sequence[Path], left_out: LeftOut) -> Images | Vectors:
    """What a model of this kind reads from these paths. Raises DataError if there is nothing."""
    if about["input"]["kind"] == "images":
        return Images(paths, about, left_out)
    return Vectors(paths, about)


def predictions(
    device: Device, model: Any, inputs: Images | Vectors, batch: int, progress: Progress | None = None
) -> Iterator[Predicted]:
    """Of all that can be read, in its order."""
    forward = Forward(device, model, min(batch, len(inputs)))
    for done, paths, values in inputs.parts(batch):
        if paths:
            scores = forward(values)
            for path, row, order in zip(paths, scores, (-scores).argsort(axis=1, kind="stable"), strict=True):
                yield Predicted(path, int(order[0]), int(order[1]), row)
        if progress is not None:
            progress(done, len(inputs))


def part_size(bytes_each: int, batch: int) -> int:
    """So many images or vectors are read at once: a multiple of the batch, one batch at least."""
    fitting = min(PART_IMAGES, PART_BYTES // bytes_each)
    return max(batch, fitting - fitting % batch)


def _files(paths: Sequence[Path], left_out: LeftOut) -> list[File]:
    from affinity_search.search.training.data.own import File, walk

    found: list[File] = []
    for path in paths:
        if path.is_dir():
            files, skipped = walk(path)
            found += files
            for name, reason in skipped:
                left_out(name, reason)
        elif path.exists():
            name = os.fspath(path)
            found.append(File(name, name, name, "", 0, path.stat().st_size))
        else:
            raise MissingDataError(f"there is no file or folder {path}; check the path")
    return found
