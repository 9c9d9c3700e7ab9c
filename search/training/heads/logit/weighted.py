"""Cross-entropy weighted by class.

    L = w_y · (−log softmax(z)_y),    w_c ∝ n_c^(−p)

n_c are the training images of class c, and w has mean 1 over the training images. Common practice; p = 1 is the inverse
frequency.
"""

from typing import Any, ClassVar

import keras
from numpy.typing import NDArray

from affinity_search.search.training.heads.base import Params, Tensor
from affinity_search.search.training.heads.class_sizes import power_weights
from affinity_search.search.training.heads.logit.layer import LogitHead, cross_entropy, of_class


@keras.saving.register_keras_serializable(package="affinity_search")
class WeightedHead(LogitHead):
    """Features (N, h) in, logits (N, C) out; p is `class_weight_power`."""

    starts: ClassVar[dict[str, float]] = {"class_weight_power": 1.0}

    def settings_of(self, params: Params) -> dict[str, float | NDArray[Any]]:
        """w, (C,)."""
        return {"class_weights": power_weights(self.class_sizes, params["class_weight_power"])}

    def loss(self, labels: Tensor, scores: Tensor) -> Tensor:
        """Weighted cross-entropy, (N,)."""
        return of_class(self.settings["class_weights"], labels) * cross_entropy(labels, scores)
