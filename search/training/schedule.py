"""What each epoch sees: its images in their order, and its learning rate. Both follow from seed and epoch alone."""

import math

import numpy as np
from numpy.typing import NDArray

from search.training.results import TrainingConfig

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
