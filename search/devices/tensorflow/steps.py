"""Training steps and predictions on TensorFlow, divided over replicas, and a fused batch norm."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.devices.errors import DeviceError

Tensor = Any


class TensorFlowSteps:
    """One traced function for any number of steps. Its bounds and the epoch's indices are arguments.

    Keras' `steps_per_execution` does the same on one device, but fixes the number of steps when it compiles. Under a
    strategy it fails, because its loop passes on optional elements of a distributed iterator. Here there is no
    iterator. Every replica gets the whole batch of indices, which is small, and takes its own part.
    """

    def __init__(self, model: Any, batch: int, strategy: Any, *, jit: bool) -> None:
        """`batch` is fixed, so that every shape within a step is; `jit` has XLA compile it.

        Raises DeviceError if the replicas cannot share a batch evenly.
        """
        import tensorflow as tf

        self._tf = tf
        self._model = model
        self._strategy = strategy or tf.distribute.get_strategy()
        replicas = self._strategy.num_replicas_in_sync
        if batch % replicas:
            raise DeviceError(
                f"a batch of {batch} cannot be divided evenly over {replicas} replicas; make training.batch a multiple"
            )
        self.step = _compiled(tf, self._one, jit)
        table, reals = (tf.TensorSpec((None, batch), kind) for kind in (tf.int32, tf.float32))
        number = tf.TensorSpec((), tf.int32)
        self._several = tf.function(self._loop, input_signature=(table, table, reals, number, number), autograph=False)

    def run(
        self,
        indices: NDArray[np.int32],
        labels: NDArray[np.int32],
        weights: NDArray[np.float32],
        start: int,
        count: int,
    ) -> float:
        """Train on batches `start` … `start` + `count` − 1 of an epoch's (S, B). Returns the mean loss so far."""
        return float(self._several(indices, labels, weights, start, count))

    def _loop(self, indices: Tensor, labels: Tensor, weights: Tensor, start: Tensor, count: Tensor) -> Tensor:
        tf = self._tf

        def body(step: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
            losses = self._strategy.run(self._part, args=(indices[step], labels[step], weights[step]))
            return step + 1, self._strategy.reduce("MEAN", losses, axis=None)

        end = start + count
        # One step after the other: they share their variables.
        loop = tf.while_loop(lambda step, loss: step < end, body, (start, tf.constant(0.0)), parallel_iterations=1)
        return loop[1]

    def _part(self, *batch: Tensor) -> Tensor:
        return self.step(*_own_parts(self._tf, self._strategy, *batch))

    def _one(self, indices: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return self._model.train_step((indices, labels, weights))["loss"]


class TensorFlowPrediction:
    """A model's outputs (B, …) for inputs (B, …), traced once.

    Keras' `predict` builds a tf.data pipeline at each call (45 ms an epoch on digits, against 1.5 ms), and
    `predict_on_batch` gives every replica the whole batch.
    """

    def __init__(self, model: Any, strategy: Any, *, jit: bool) -> None:
        """`jit` has XLA compile it."""
        import tensorflow as tf

        self._tf = tf
        self._model = model
        self._strategy = strategy or tf.distribute.get_strategy()
        self.forward = _compiled(tf, self._one, jit)
        self._whole = tf.function(self._divided, autograph=False)

    def __call__(self, indices: NDArray[Any]) -> NDArray[Any]:
        parts = self._strategy.experimental_local_results(self._whole(self._tf.constant(indices)))
        return np.concatenate([part.numpy() for part in parts])

    def _divided(self, indices: Tensor) -> Tensor:
        return self._strategy.run(self._part, args=(indices,))

    def _part(self, indices: Tensor) -> Tensor:
        return self.forward(*_own_parts(self._tf, self._strategy, indices))

    def _one(self, indices: Tensor) -> Tensor:
        return self._model(indices, training=False)


def _compiled(tf: Any, function: Any, jit: bool) -> Any:
    """The function itself, unless XLA compiles it: a strategy cannot sum gradients of replicas inside a nested
    function.
    """
    return tf.function(function, jit_compile=True, autograph=False) if jit else function


def _own_parts(tf: Any, strategy: Any, *whole: Tensor) -> tuple[Tensor, ...]:
    """The calling replica's own part of each (B, …)."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return whole
    own = tf.distribute.get_replica_context().replica_id_in_sync_group
    return tuple(tf.reshape(each, (replicas, -1, *each.shape[1:]))[own] for each in whole)


def fused_batch_norm(
    inputs: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, moving: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise (N, H, W, channels) by the batch's mean and variance, or by `moving`. Returns them too.

    oneDNN's kernel reads bfloat16 and computes in float32. It returns Bessel's variance, divided by n − 1; Keras uses
    the variance divided by n.
    """
    import tensorflow as tf

    mean, variance = (tf.convert_to_tensor(part) for part in moving) if moving else (tf.zeros([0]), tf.zeros([0]))
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.convert_to_tensor(gamma),
        offset=tf.convert_to_tensor(beta),
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=moving is None,
    )
    if moving is None:
        n = tf.cast(tf.size(inputs) / tf.shape(inputs)[-1], "float32")
        variance = variance * (n - 1.0) / n
    return outputs, mean, variance
