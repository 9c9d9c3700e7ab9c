"""Counting on the device, during training, what the diagnostics tell: no pass of its own, nothing to bring back."""

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from affinity_search.search import devices
from affinity_search.search.training.heads.affinity_diagnostics import Diagnostics, diagnose

Tensor = Any


class Watch:
    """Sums over the images of an epoch, kept in variables of the affinity head.

    Under a strategy every replica counts its own part. Keras adds before it aggregates, so that aggregating by sum
    would add up the old counts as well: the mean of (old + replicas × part) is old + the sum of the parts.
    """

    def __init__(self, head: Any, n_classes: int, max_centers: int) -> None:
        """Adds the variables to `head`, which is being built."""

        def counter(name: str, shape: tuple[int, ...] = ()) -> Any:
            return head.add_weight(shape=shape, initializer="zeros", trainable=False, name=name, aggregation="mean")

        self._nearest = counter("nearest", (n_classes, max_centers))
        self._hinge = counter("hinge")
        self._inside = counter("inside")
        self._seen = counter("seen")

    def count(self, labels: Tensor, distances: Tensor, hinge: Tensor) -> None:
        """A batch: labels (N,), squared distances to all centres (N, C, M), hinge terms of eq. (4) (N,)."""
        n_classes, room = distances.shape[1:]
        labels = ops.cast(labels, "int32")
        own = ops.take_along_axis(distances, labels[:, None, None], axis=1)[:, 0]  # (N, M): of the image's own class
        nearest = labels * room + ops.cast(ops.argmin(own, axis=1), "int32")
        counts = ops.sum(ops.one_hot(nearest, n_classes * room, dtype="float32"), axis=0)
        parts = (
            (self._nearest, ops.reshape(counts, (n_classes, room))),
            (self._hinge, ops.sum(hinge)),
            (self._inside, ops.sum(ops.cast(hinge > 0, "float32"))),
            (self._seen, ops.sum(ops.ones_like(hinge))),
        )
        for counter, part in parts:
            counter.assign_add(devices.current().replicas() * part)

    def reset(self) -> None:
        """An epoch begins."""
        for variable in (self._nearest, self._hinge, self._inside, self._seen):
            variable.assign(np.zeros(variable.shape, "float32"))

    def read(self, centers: NDArray[np.float32]) -> Diagnostics:
        """What was counted since the last reset, with the epoch's last centres (C, m, h)."""
        hinge, inside, seen = (float(ops.convert_to_numpy(part)) for part in (self._hinge, self._inside, self._seen))
        nearest = ops.convert_to_numpy(self._nearest)[:, : centers.shape[1]]
        seen = max(seen, 1.0)
        return diagnose(centers, nearest, hinge=hinge / seen, inside=inside / seen)
