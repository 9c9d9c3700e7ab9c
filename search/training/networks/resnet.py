"""The residual network for CIFAR. He et al. 2016, Deep residual learning for image recognition, section 4.2.

    Conv 3×3 of the first width → batch norm → ReLU
    for each width: depth × (Conv 3×3 → batch norm → ReLU → Conv 3×3 → batch norm, + shortcut → ReLU)

The first convolution of each width but the first has stride 2. Widths (16, 32, 64) and depth 5 are ResNet-32: with 10
classes 464,154 weights that are trained, those of batch norms and softmax head included.
"""

from typing import Any

import keras
from keras import ops

from affinity_search.search.devices.precision import Precision
from affinity_search.search.training.networks.building import NetworkConfig
from affinity_search.search.training.networks.normalization import BatchNorm

Tensor = Any


@keras.saving.register_keras_serializable(package="affinity_search")
class Shortcut(keras.layers.Layer):  # type: ignore[misc]
    """Option A of section 3.3, without weights: every `stride`-th pixel, and zeros for the channels that are new."""

    def __init__(self, stride: int, width: int, **options: Any) -> None:
        """`width` are the channels that come out, no fewer than go in."""
        super().__init__(**options)
        self.stride = stride
        self.width = width

    def get_config(self) -> dict[str, Any]:
        """For Keras, which makes the layer anew from it."""
        return {**super().get_config(), "stride": self.stride, "width": self.width}

    def call(self, images: Tensor) -> Tensor:
        """(N, H, W, channels) to (N, ⌈H / stride⌉, ⌈W / stride⌉, width)."""
        new = self.width - images.shape[-1]
        return ops.pad(images[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (0, new)))


def stages(x: Tensor, config: NetworkConfig, precision: Precision) -> Tensor:
    """Scaled images (N, H, W, channels) to feature maps (N, H', W', h), h the last of the widths.

    Raises ValueError for a width below the one before: the shortcuts can add channels alone.
    """
    if list(config.widths) != sorted(config.widths):
        raise ValueError(f"the widths of {config.kind} must not fall from one to the next: {config.widths}")
    x = keras.layers.ReLU(dtype=precision)(_normalised(x, config.widths[0], 1, "stem", config, precision))
    for stage, width in enumerate(config.widths):
        for number in range(config.depth):
            stride = 2 if stage > 0 and number == 0 else 1
            x = _block(x, width, stride, f"{stage}_{number}", config, precision)
    return x


def _block(x: Tensor, width: int, stride: int, name: str, config: NetworkConfig, precision: Precision) -> Tensor:
    """relu(f(x) + shortcut(x)), f of two convolutions. Eq. (1) and figure 2."""
    inner = _normalised(x, width, stride, f"{name}_0", config, precision)
    inner = keras.layers.ReLU(dtype=precision)(inner)
    inner = _normalised(inner, width, 1, f"{name}_1", config, precision)
    if stride > 1 or x.shape[-1] != width:
        x = Shortcut(stride, width, dtype=precision, name=f"shortcut_{name}")(x)
    return keras.layers.ReLU(dtype=precision)(keras.layers.Add(dtype=precision)([inner, x]))


def _normalised(x: Tensor, width: int, stride: int, name: str, config: NetworkConfig, precision: Precision) -> Tensor:
    """A convolution and its batch norm, named as in `plain`, and like there without a bias."""
    padding = "same"
    if stride > 1:
        # A zero on every side, so that the windows lie around the pixels that the shortcut takes. With "same" they
        # would lie one pixel further where the side is even.
        x, padding = keras.layers.ZeroPadding2D(1, dtype=precision)(x), "valid"
    x = keras.layers.Conv2D(
        width,
        3,
        stride,
        padding,
        use_bias=False,
        kernel_initializer="he_normal",  # He et al. 2015, as section 3.4 says
        dtype=precision,
        name=f"conv_{name}",
    )(x)
    return BatchNorm(momentum=config.batch_norm_momentum, dtype=precision, name=f"norm_{name}")(x)
