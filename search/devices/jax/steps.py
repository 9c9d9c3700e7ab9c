"""Training steps and predictions on JAX: several steps in one compiled call."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = list[Any]


class JaxSteps:
    """One compiled loop for any number of steps. Its bounds and the epoch's indices are arguments."""

    def __init__(self, model: Any) -> None:
        import jax

        def several(state: tuple[Values, ...], indices: Any, labels: Any, weights: Any, start: Any, count: Any) -> Any:
            def body(step: Any, carried: Any) -> Any:
                logs, state = model.train_step(carried[0], (indices[step], labels[step], weights[step]))
                return tuple(state), logs["loss"]

            return jax.lax.fori_loop(start, start + count, body, (state, jax.numpy.zeros(())))

        # The old state's memory becomes the new one's.
        self.several = jax.jit(several, donate_argnums=0)
        self._model = model

    def state(self) -> tuple[Values, ...]:
        """The values of everything that a step changes."""
        return tuple([variable.value for variable in group] for group in self._groups())

    def _groups(self) -> tuple[Values, ...]:
        model = self._model
        return (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )

    def run(
        self,
        indices: NDArray[np.int32],
        labels: NDArray[np.int32],
        weights: NDArray[np.float32],
        start: int,
        count: int,
    ) -> float:
        """Train on batches `start` … `start` + `count` − 1 of an epoch's (S, B). Returns the mean loss so far."""
        bounds = np.int32(start), np.int32(count)
        state, loss = self.several(self.state(), indices, labels, weights, *bounds)
        for group, values in zip(self._groups(), state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return float(loss)


def prediction(model: Any) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """A function from inputs (B, …) to the model's outputs (B, …), compiled once."""
    return lambda indices: np.asarray(model.predict_on_batch(indices))
