"""The baseline: a softmax layer with cross-entropy."""

from collections.abc import Sequence
from typing import Self

import keras

from affinity_search.search.training.heads.base import Head, Params, Tensor, redraw, require


@keras.saving.register_keras_serializable(package="affinity_search")
class SoftmaxHead(Head, keras.layers.Dense):  # type: ignore[misc]
    """Features (N, h) in, logits (N, C) out."""

    @classmethod
    def make(cls, class_sizes: Sequence[int], room: int) -> Self:
        """As `Head.make`."""
        return cls(len(class_sizes), dtype="float32", name="head")

    def loss(self, labels: Tensor, scores: Tensor) -> Tensor:
        """Cross-entropy of the softmax of the logits, (N,)."""
        return keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True)

    def begin(self, params: Params, seed: int) -> None:
        """Fresh weights; the head has no parameters."""
        require(params)
        redraw(self, seed)
