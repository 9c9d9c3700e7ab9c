"""The model's first layers: images or vectors that live on the device, looked up by index, images shifted there.

No host image pipeline is left: a training step receives N integers.
"""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

Tensor = Any
Rows = NDArray[np.uint8] | NDArray[np.float32]


class Table(keras.layers.Layer):  # type: ignore[misc]
    """Indices (N,) int32 in, rows (N, …) out, from a table kept on the device: images, vectors, labels."""

    def __init__(self, rows: Rows, **options: Any) -> None:
        """`rows` (T, …) of uint8, as images are, in a quarter of float32's memory; or of float32, as vectors are.

        Labels too are uint8, because TensorFlow keeps int32 variables in the host's memory, beside a GPU too.
        """
        super().__init__(**options)
        self.table = keras.Variable(rows, dtype=rows.dtype.name, trainable=False, name=options.get("name"))

    def call(self, indices: Tensor) -> Tensor:
        """One gather; an index outside the table is the caller's error and not checked."""
        return ops.take(ops.convert_to_tensor(self.table), indices, axis=0)


class Augmentation(keras.layers.Layer):  # type: ignore[misc]
    """In training only: shift by up to `shift_px` pixels either way, zeros moving in; mirror half of the images."""

    def __init__(self, shift_px: int, flip: bool, **options: Any) -> None:
        """`flip` turns the mirroring, left to right, on."""
        super().__init__(**options)
        self.shift_px = shift_px
        self.flip = flip
        self.random = keras.random.SeedGenerator(0, name="random")

    def begin(self, seed: int) -> None:
        """Start the random sequence that belongs to `seed`."""
        self.random.state.assign(np.array([seed, 0], "uint32"))

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        """uint8 (N, H, W, channels) in and out."""
        if not training:
            return images
        n, (height, width) = ops.shape(images)[0], images.shape[1:3]
        rows, columns = self._source(n, height), self._source(n, width)
        if self.flip:
            mirrored = keras.random.randint((n, 1), 0, 2, seed=self.random)
            columns = ops.where(mirrored == 1, width - 1 - columns, columns)
        return _pick(images, rows, columns)

    def _source(self, n: Tensor, size: int) -> Tensor:
        """Where each row (or column) of the result comes from, (n, size); outside 0..size-1 means zeros."""
        shift = keras.random.randint((n, 1), -self.shift_px, self.shift_px + 1, seed=self.random)
        return ops.arange(size, dtype="int32")[None, :] + shift


def _pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """result[n, y, x] = images[n, rows[n, y], columns[n, x]], or 0 outside the image, in a single gather."""
    height, width, channels = images.shape[1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    rows, columns = ops.clip(rows, 0, height - 1), ops.clip(columns, 0, width - 1)
    first = ops.arange(ops.shape(images)[0], dtype="int32")[:, None, None] * (height * width)
    pixels = ops.take(
        ops.reshape(images, (-1, channels)), first + rows[:, :, None] * width + columns[:, None, :], axis=0
    )
    return ops.where(inside[..., None], pixels, ops.zeros_like(pixels))


@keras.saving.register_keras_serializable(package="affinity_search")
class Scale(keras.layers.Layer):  # type: ignore[misc]
    """Pixels 0..255 to 0..1 in the layer's compute type."""

    def call(self, images: Tensor) -> Tensor:
        """uint8 in, float out, same shape."""
        return ops.cast(images, self.compute_dtype) / 255
