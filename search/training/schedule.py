"""What each epoch sees: its images in their order, and its learning rate. Both follow from seed and epoch alone."""

import math
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from affinity_search.search.devices.precision import Precision
from affinity_search.search.training.results import TrainingConfig

DROP = 5  # the learning rate is divided by it at each drop


def whole_batches(n: int, batch: int) -> int:
    """The least multiple of `batch` that holds `n`."""
    return math.ceil(n / batch) * batch


def epoch_order(
    indices: NDArray[np.int32], labels: NDArray[np.int32], batch: int, seed: int, epoch: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The epoch's (indices, labels) in random order, the last batch filled up from the order's start.

    Depends on seed and epoch alone, so that a continued run sees what an uninterrupted one sees.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(indices))
    filled = np.resize(order, whole_batches(len(order), batch))
    return indices[filled], labels[filled]


def learning_rate(training: TrainingConfig, epoch: int) -> float:
    """The rate of `epoch`, counted from 0: divided by 5 from each drop's share of the epochs on."""
    passed = sum(epoch >= round(drop * training.epochs, 9) for drop in training.drops)  # 0.55 · 100 is a little over 55
    return training.learning_rate / float(DROP**passed)


CALL_S = 1.0
GROWTH = 8  # at most so many times as many steps as in the call before


class Pace:
    """Learns from each call how long a step takes."""

    def __init__(self) -> None:
        self._steps = 1  # the first call compiles, too, and says little

    def steps(self, left: int) -> int:
        """For the next call, of `left` that are still to be made."""
        return min(self._steps, left)

    def learn(self, steps: int, took_s: float) -> None:
        """A call of so many steps took so long."""
        in_time = int(CALL_S * steps / max(took_s, 1e-9))
        self._steps = max(1, min(in_time, GROWTH * steps))


def make_optimizer(precision: Precision) -> Any:
    """Its variables' paths are part of a checkpoint, hence the names."""
    adam = keras.optimizers.Adam(name="adam")
    return keras.optimizers.LossScaleOptimizer(adam, name="scaled") if precision == "mixed_float16" else adam


def reset_optimizer(optimizer: Any) -> None:
    """Everything a fresh one has: no step made, no moments, and the first scale of the loss."""
    for variable in optimizer.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer.dynamic_scale.assign(optimizer.initial_scale)
