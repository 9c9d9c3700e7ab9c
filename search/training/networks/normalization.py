"""Batch normalisation as Keras defines it, in one fused operation where the device has a fast one."""

from typing import Any

import keras

from affinity_search.search import devices

Tensor = Any


class BatchNorm(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Keras' layer, its variables and its meaning; images (N, H, W, channels) take the device's fused operation.

    Keras itself normalises in a chain of elementwise operations, each of which writes its float32 result to memory: on
    a CPU with fast bfloat16 products they took more than half of the time of a CIFAR-10 step.
    """

    def call(self, inputs: Tensor, training: bool = False, mask: Tensor = None) -> Tensor:
        """(…, channels) in and out, normalised over all axes but the last. Ioffe and Szegedy 2015, algorithm 1."""
        fused = devices.current().fused_batch_norm() if len(inputs.shape) == 4 else None
        if fused is None:
            return super().call(inputs, training=training, mask=mask)
        if not training:
            moving = (self.moving_mean, self.moving_variance)
            return fused(inputs, self.gamma, self.beta, self.epsilon, moving)[0]
        outputs, mean, variance = fused(inputs, self.gamma, self.beta, self.epsilon)
        for moving_average, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving_average.assign(moving_average * self.momentum + now * (1.0 - self.momentum))
        return outputs
