"""The label-distribution-aware margin loss (LDAM) of Cao et al. 2019, arXiv 1906.07413, eq. (13).

    L = −log softmax(s · (cos θ − Δ_y e_y))_y,    Δ_c = Δ_max (n_min / n_c)^(1/4)

cos θ_c is the cosine between the features and the vector of class c, e_y the unit vector of the image's class. The
paper has Δ_max = 0.5 and s = 30. The scores are s · cos θ, without margins.
"""

from typing import Any, ClassVar

import keras
from keras import ops
from numpy.typing import NDArray

from affinity_search.search.training.heads.base import Params, Tensor
from affinity_search.search.training.heads.class_sizes import relative_margins
from affinity_search.search.training.heads.logit.layer import LogitHead, cross_entropy, own_class

SMALLEST_SQUARE = 1e-12  # of a vector's length: features may all be 0 after a ReLU


def unit(vectors: Tensor, axis: int) -> Tensor:
    """The vectors along `axis`, each of length 1."""
    squares = ops.sum(ops.square(vectors), axis=axis, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squares, SMALLEST_SQUARE))


@keras.saving.register_keras_serializable(package="affinity_search")
class LdamHead(LogitHead):
    """Features (N, h) in, s · cos θ (N, C) out; Δ_max is `max_margin`, s is `scale`."""

    starts: ClassVar[dict[str, float]] = {"max_margin": 0.5, "scale": 30.0}

    def __init__(self, class_sizes: Any, **options: Any) -> None:
        """As `LogitHead`. There is no bias: cosines have none."""
        super().__init__(class_sizes, **options | {"use_bias": False})

    def settings_of(self, params: Params) -> dict[str, float | NDArray[Any]]:
        """s, and Δ (C,)."""
        margins = params["max_margin"] * relative_margins(self.class_sizes, 0.25)
        return {"scale": params["scale"], "margins": margins}

    def call(self, features: Tensor, training: bool = False) -> Tensor:
        """s · cos θ, (N, C)."""
        features = unit(ops.cast(features, "float32"), axis=1)
        cosines = ops.matmul(features, unit(ops.convert_to_tensor(self.kernel), axis=0))
        return ops.convert_to_tensor(self.settings["scale"]) * cosines

    def loss(self, labels: Tensor, scores: Tensor) -> Tensor:
        """Cross-entropy with the own class's score lowered by s Δ_y, (N,)."""
        own = own_class(labels, scores.shape[1])
        lowered = ops.convert_to_tensor(self.settings["scale"]) * ops.convert_to_tensor(self.settings["margins"])
        return cross_entropy(labels, scores - own * lowered)
