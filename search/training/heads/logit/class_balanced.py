"""The class-balanced loss of Cui et al. 2019, arXiv 1901.05555.

    L = w_y · (−log softmax(z)_y),    w_c ∝ (1 − β) / (1 − β^n_c)

The denominator over 1 − β is the effective number of n_c images that overlap. w has mean 1 over the training images.
"""

from typing import Any, ClassVar

import keras
from numpy.typing import NDArray

from affinity_search.search.training.heads.base import Params
from affinity_search.search.training.heads.class_sizes import effective_weights
from affinity_search.search.training.heads.logit.weighted import WeightedHead


@keras.saving.register_keras_serializable(package="affinity_search")
class ClassBalancedHead(WeightedHead):
    """As `WeightedHead` with other weights; 1 − β is `one_minus_beta`."""

    starts: ClassVar[dict[str, float]] = {"one_minus_beta": 1e-3}

    def settings_of(self, params: Params) -> dict[str, float | NDArray[Any]]:
        """w, (C,). Raises ValueError unless 1 − β is above 0 and at most 1."""
        one_minus_beta = params["one_minus_beta"]
        if not 0 < one_minus_beta <= 1:
            raise ValueError(f"one_minus_beta is {one_minus_beta}; it must be above 0 and at most 1")
        return {"class_weights": effective_weights(self.class_sizes, one_minus_beta)}
