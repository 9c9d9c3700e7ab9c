"""The focal loss of Lin et al. 2017, arXiv 1708.02002, for many classes.

    L = w_y · (1 − q)^γ · (−log q),    q = softmax(z)_y,    w_c ∝ n_c^(−p)

w has mean 1 over the training images; γ = 0 is weighted cross-entropy, p = 0 weighs all images alike.
"""

from typing import Any, ClassVar

import keras
from keras import ops
from numpy.typing import NDArray

from affinity_search.search.training.heads.base import Params, Tensor
from affinity_search.search.training.heads.class_sizes import power_weights
from affinity_search.search.training.heads.logit.layer import LogitHead, cross_entropy, of_class, own_class

# In place of the own class's logit: exp of it is 0 beside any other.
NOTHING = -1e30


@keras.saving.register_keras_serializable(package="affinity_search")
class FocalHead(LogitHead):
    """Features (N, h) in, logits (N, C) out; γ is `gamma`, p is `class_weight_power`."""

    starts: ClassVar[dict[str, float]] = {"gamma": 2.0, "class_weight_power": 0.0}
    optional: ClassVar[tuple[str, ...]] = ("class_weight_power",)

    def settings_of(self, params: Params) -> dict[str, float | NDArray[Any]]:
        """γ, and w (C,)."""
        weights = power_weights(self.class_sizes, params["class_weight_power"])
        return {"gamma": params["gamma"], "class_weights": weights}

    def loss(self, labels: Tensor, scores: Tensor) -> Tensor:
        """The focal loss, (N,).

        (1 − q)^γ is exp(γ · log(1 − q)), and 1 − q the share of the other classes: the power itself has an infinite
        slope at q = 1 for γ below 1.
        """
        own = own_class(labels, scores.shape[1])
        others = ops.logsumexp(ops.where(own > 0, NOTHING, scores), axis=1)
        log_rest = others - ops.logsumexp(scores, axis=1)
        focus = ops.exp(ops.convert_to_tensor(self.settings["gamma"]) * log_rest)
        return of_class(self.settings["class_weights"], labels) * focus * cross_entropy(labels, scores)
