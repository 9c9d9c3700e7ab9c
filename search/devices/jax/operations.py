"""Operations that mean what Keras' own mean, and read and write less memory: on a GPU that is what they cost.

XLA fuses what lies between two convolutions, but it computes what it is told: Keras' batch norm reads its input once
for the mean and once more for the variance, and its average pooling is a general window.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from jax import numpy as jnp

Tensor = Any
_PIXELS = (0, 1, 2)  # all axes but the channels


def batch_norm(
    inputs: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, moving: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise (N, H, W, channels) by the batch's mean and variance, or by `moving`. Returns them too.

    Computes in float32 and gives the type of `inputs`. Ioffe and Szegedy 2015, algorithm 1; the gradients are those of
    its section 3. Mean and variance are for the moving statistics alone: no gradient goes through them.
    """
    gamma, beta = jnp.asarray(gamma), jnp.asarray(beta)
    if moving is None:
        outputs, mean, variance = _by_batch(inputs, gamma, beta, epsilon)
        return outputs, mean, variance
    mean, variance = (jnp.asarray(part) for part in moving)
    return _normalised(inputs, gamma, beta, mean, jax.lax.rsqrt(variance + epsilon)), mean, variance


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _by_batch(inputs: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Any:
    return _forward(inputs, gamma, beta, epsilon)[0]


def _forward(inputs: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> tuple[Any, Any]:
    # Sums of x and x² in one pass. Of x − a pixel, because the difference of two large numbers would lose the variance
    # of channels that lie far from 0.
    pixel = inputs[0, 0, 0].astype("float32")
    shifted = inputs.astype("float32") - pixel
    mean = jnp.mean(shifted, _PIXELS)
    variance = jnp.maximum(jnp.mean(jnp.square(shifted), _PIXELS) - jnp.square(mean), 0.0)
    mean, deviation = mean + pixel, jax.lax.rsqrt(variance + epsilon)
    outputs = _normalised(inputs, gamma, beta, mean, deviation)
    return (outputs, mean, variance), (inputs, gamma, mean, deviation)


def _normalised(inputs: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """`deviation` is 1/√(variance + ε)."""
    factor = gamma * deviation
    return (inputs.astype("float32") * factor + (beta - mean * factor)).astype(inputs.dtype)


def _backward(epsilon: float, kept: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    inputs, gamma, mean, deviation = kept
    gradient = gradients[0].astype("float32")
    standard = (inputs.astype("float32") - mean) * deviation
    of_beta = jnp.sum(gradient, _PIXELS)
    of_gamma = jnp.sum(gradient * standard, _PIXELS)
    n = inputs.size // inputs.shape[-1]
    of_inputs = gamma * deviation * (gradient - of_beta / n - standard * (of_gamma / n))
    return of_inputs.astype(inputs.dtype), of_gamma, of_beta


_by_batch.defvjp(_forward, _backward)


def average_pool(images: Tensor) -> Tensor:
    """The mean of each 2×2 pixels of (N, H, W, channels): (N, ⌊H/2⌋, ⌊W/2⌋, channels), in the type of `images`."""
    height, width, channels = images.shape[1:]
    rows, columns = height // 2, width // 2
    blocks = images[:, : 2 * rows, : 2 * columns].reshape(-1, rows, 2, columns, 2, channels)
    return jnp.mean(blocks, (2, 4))
