"""The logit-adjusted loss of Menon et al. 2021, arXiv 2007.07314, eq. (10).

    L = −log softmax(z + τ log π)_y,    π_c = n_c / Σ n

The prediction is argmax z, without the adjustment. τ = 1 is the balanced softmax of Ren et al. 2020, arXiv 2007.10740.
"""

from typing import Any, ClassVar

import keras
from keras import ops
from numpy.typing import NDArray

from affinity_search.search.training.heads.base import Params, Tensor
from affinity_search.search.training.heads.class_sizes import log_shares
from affinity_search.search.training.heads.logit.layer import LogitHead, cross_entropy


@keras.saving.register_keras_serializable(package="affinity_search")
class LogitAdjustedHead(LogitHead):
    """Features (N, h) in, logits z (N, C) out; τ is `tau`."""

    starts: ClassVar[dict[str, float]] = {"tau": 1.0}

    def settings_of(self, params: Params) -> dict[str, float | NDArray[Any]]:
        """τ log π, (C,)."""
        return {"adjustment": params["tau"] * log_shares(self.class_sizes)}

    def loss(self, labels: Tensor, scores: Tensor) -> Tensor:
        """Cross-entropy of the adjusted logits, (N,)."""
        return cross_entropy(labels, scores + ops.convert_to_tensor(self.settings["adjustment"]))
