"""The class-balanced loss of Cui et al. 2019, arXiv 1901.05555.

    L = w_y · (−log softmax(z)_y),    w_c ∝ (1 − β) / (1 − β^n_c)

The denominator over 1 − β is the effective number of n_c images that overlap. w has mean 1 over the training images.
"""

from typing import Any, ClassVar

import keras
from numpy.typing import NDArray

from affinity_search.search.training.heads.base import Params, Tensor
from affinity_search.search.training.heads.class_sizes import effective_weights
from affinity_search.search.training.heads.logit.layer import LogitHead, cross_entropy, of_class


@keras.saving.register_keras_serializable(package="affinity_search")
class ClassBalancedHead(LogitHead):
    """Features (N, h) in, logits (N, C) out; 1 − β is `one_minus_beta`."""

    starts: ClassVar[dict[str, float]] = {"one_minus_beta": 1e-3}

    def settings_of(self, params: Params) -> dict[str, float | NDArray[Any]]:
        """w, (C,). Raises ValueError unless 1 − β is above 0 and at most 1."""
        one_minus_beta = params["one_minus_beta"]
        if not 0 < one_minus_beta <= 1:
            raise ValueError(f"one_minus_beta is {one_minus_beta}; it must be above 0 and at most 1")
        return {"class_weights": effective_weights(self.class_sizes, one_minus_beta)}

    def loss(self, labels: Tensor, scores: Tensor) -> Tensor:
        """Weighted cross-entropy, (N,)."""
        return of_class(self.settings["class_weights"], labels) * cross_entropy(labels, scores)
