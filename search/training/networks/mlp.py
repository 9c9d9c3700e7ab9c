"""Dense layers on all values of an image or a vector.

    for each width: depth × (Dense → batch norm → ReLU)

Without widths nothing is left before the head: with the softmax head that is multinomial logistic regression.
"""

from typing import Any

import keras

from affinity_search.search.devices.precision import Precision
from affinity_search.search.training.networks.building import NetworkConfig
from affinity_search.search.training.networks.normalization import BatchNorm


def stages(x: Any, config: NetworkConfig, precision: Precision) -> Any:
    """Scaled images (N, H, W, channels) or vectors (N, D) to features (N, h), h the last of the widths, else all."""
    x = keras.layers.Flatten(dtype=precision)(x)
    for block, width in enumerate(config.widths):
        for number in range(config.depth):
            name = f"{block}_{number}"  # and no bias: as in `plain`
            x = keras.layers.Dense(width, use_bias=False, dtype=precision, name=f"dense_{name}")(x)
            x = BatchNorm(momentum=config.batch_norm_momentum, dtype=precision, name=f"norm_{name}")(x)
            x = keras.layers.ReLU(dtype=precision)(x)
    return x
