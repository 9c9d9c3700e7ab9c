"""Adam, with a scaled loss where the gradients of float16 would vanish; brought back to its start between trials."""

from typing import Any

import keras
import numpy as np

from search.training.results import Precision


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
