"""The networks of the article and its follow-up, from one parametrised builder.

    for each width: depth × (Conv 3×3 same → batch norm → ReLU), average pooling by 2 between widths

MNIST is widths (32, 64, 128), depth 1; CIFAR-10 is widths (64, 128, 256), depth 3.
"""

from typing import Any

import keras

from affinity_search.search import devices
from affinity_search.search.devices.precision import Precision
from affinity_search.search.training.networks.building import NetworkConfig
from affinity_search.search.training.networks.normalization import BatchNorm


class HalvingPool(keras.layers.AveragePooling2D):  # type: ignore[misc]
    """Keras' average pooling; by 2 it is one operation of the device where that has a faster one."""

    def call(self, inputs: Any) -> Any:
        """(N, H, W, channels) to (N, ⌊H/2⌋, ⌊W/2⌋, channels)."""
        own = devices.current().average_pool() if self.pool_size == (2, 2) else None
        return super().call(inputs) if own is None else own(inputs)


def stages(x: Any, config: NetworkConfig, precision: Precision) -> Any:
    """Scaled images (N, H, W, channels) to feature maps (N, H', W', h), h the last of the widths."""
    for block, width in enumerate(config.widths):
        if block > 0:
            x = HalvingPool(2, dtype=precision)(x)
        for number in range(config.depth):
            # Named, because Keras counts on from model to model: a checkpoint must fit the next process's network. No
            # bias: the batch norm right behind it would subtract it.
            name = f"conv_{block}_{number}"
            x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, dtype=precision, name=name)(x)
            x = BatchNorm(momentum=config.batch_norm_momentum, dtype=precision, name=f"norm_{block}_{number}")(x)
            x = keras.layers.ReLU(dtype=precision)(x)
    return x
