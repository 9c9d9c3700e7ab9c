"""What each epoch sees: its images in their order, their weights, its learning rate. All follow from seed and epoch."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from affinity_search.search.training.heads.class_sizes import effective_weights
from affinity_search.search.training.results import TrainingConfig

MOMENTUM = 0.9  # of SGD
# Of deferred re-weighting: β of the class-balanced weights in Cao et al. 2019, arXiv 1906.07413, section 4.
DEFERRED_ONE_MINUS_BETA = 1e-4


def whole_batches(n: int, batch: int) -> int:
    """The least multiple of `batch` that holds `n`."""
    return math.ceil(n / batch) * batch


def epoch_order(
    indices: NDArray[np.int32], labels: NDArray[np.int32], training: TrainingConfig, seed: int, epoch: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The epoch's (indices, labels) in random order, the last batch filled up from the order's start.

    Depends on seed and epoch alone, so that a continued run sees what an uninterrupted one sees.
    """
    random = np.random.default_rng((seed, epoch))
    if training.sampling == "natural":
        order = random.permutation(len(indices))
    else:
        order = random.choice(len(indices), len(indices), p=_chances(labels, training.sampling))
    filled = np.resize(order, whole_batches(len(order), training.batch))
    return indices[filled], labels[filled]


def _chances(labels: NDArray[np.int32], sampling: str) -> NDArray[np.float64]:
    """Of each image to be the next one drawn: alike for all classes, or as the square roots of their sizes."""
    sizes = np.bincount(labels).astype(float)[labels]
    chances = 1.0 / sizes if sampling == "balanced" else 1.0 / np.sqrt(sizes)
    normed: NDArray[np.float64] = chances / chances.sum()
    return normed


def class_weights(class_sizes: Sequence[int], training: TrainingConfig, epoch: int) -> NDArray[np.float32]:
    """What the loss of each class's images is multiplied by, (C,): 1, or deferred re-weighting's from its epoch on."""
    begins = training.reweight_from
    if begins is None or epoch < round(begins * training.epochs, 9):
        return np.ones(len(class_sizes), np.float32)
    return effective_weights(class_sizes, DEFERRED_ONE_MINUS_BETA).astype(np.float32)


def learning_rate(training: TrainingConfig, epoch: int, rate: float) -> float:
    """What `rate` has become in `epoch`, counted from 0. 0.55 · 100 is a little over 55: shares are rounded."""
    warm = math.ceil(round(training.warmup * training.epochs, 9))
    if epoch < warm:
        return rate * (epoch + 1) / warm
    if training.schedule == "cosine":
        return rate * 0.5 * (1.0 + math.cos(math.pi * (epoch - warm) / (training.epochs - warm)))
    passed = sum(epoch >= round(drop * training.epochs, 9) for drop in training.drops)
    return rate / float(training.drop_by**passed)


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


def make_optimizer(training: TrainingConfig, variables: Sequence[Any]) -> Any:
    """Built for the variables. Its own variables' paths are part of a checkpoint, hence the names.

    Where runs decay their weights, the amount is a variable: the next run's compiles nothing.
    """
    if training.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=MOMENTUM, name="sgd")
    else:
        optimizer = keras.optimizers.Adam(name="adam")
    if training.decays:
        optimizer.exclude_from_weight_decay([variable for variable in variables if variable.name != "kernel"])
    whole = optimizer
    if training.precision == "mixed_float16":
        whole = keras.optimizers.LossScaleOptimizer(optimizer, name="scaled")
    whole.build(variables)
    if training.decays:
        optimizer.weight_decay = optimizer.add_variable((), name="weight_decay", dtype="float32")
    return whole


def set_weight_decay(optimizer: Any, decay: float) -> None:
    """Decoupled, as in AdamW: a step first shrinks the kernels by learning rate · decay. Loshchilov and Hutter 2019.

    Centres, biases and batch norm do not decay. Does nothing for an optimiser that was made for runs without decay.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if inner.weight_decay is not None:
        inner.weight_decay.assign(decay)


def reset_optimizer(optimizer: Any) -> None:
    """Everything a fresh one has: no step made, no moments, and the first scale of the loss."""
    for variable in optimizer.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer.dynamic_scale.assign(optimizer.initial_scale)
