"""What the article's pictures show: the features that enter the last batch norm, and the head's points among them."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


@dataclass(frozen=True)
class Features:
    """`values` (N, h) of images with `labels` (N,); `centers` (C, m, h) in the same space, None for a head without."""

    values: NDArray[np.float32]
    labels: NDArray[np.int32]
    centers: NDArray[np.float32] | None


def features_of(model: Any) -> Any:
    """The same network with the outputs of its layer "features"."""
    return keras.Model(model.input, model.get_layer("features").output)


def centers_among_features(model: Any) -> NDArray[np.float32] | None:
    """The head's points before the batch norm that may stand in front of it: its inverse with the moving statistics."""
    head = model.get_layer("head")
    centers: NDArray[np.float32] | None = head.points()
    if centers is None or not head.normalised:
        return centers
    norm = model.get_layer("head_norm")
    gamma, beta, mean, variance = (
        ops.convert_to_numpy(part) for part in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    gamma = np.where(np.abs(gamma) < 1e-6, 1e-6, gamma)  # a feature that was switched off has no inverse
    found: NDArray[np.float32] = (centers - beta) / gamma * np.sqrt(variance + norm.epsilon) + mean
    return found
