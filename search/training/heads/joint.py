"""The affinity loss and a softmax cross-entropy on the same features: a little steadier, says the article's follow-up.

    L = eq. (7) + share · (−log softmax(V f + b)_y)

f (N, h) are the features, V (C, h) and b (C,) a dense layer of the softmax part alone. The affinities predict.
"""

from typing import Any

import keras
from keras import ops

from affinity_search.search.training.heads.affinity import AffinityHead
from affinity_search.search.training.heads.base import Params, Tensor, redraw, require_amounts, setting
from affinity_search.search.training.heads.logit.layer import cross_entropy

ARTICLE_SHARE = 1.0


@keras.saving.register_keras_serializable(package="affinity_search")
class JointHead(AffinityHead):
    """Features (N, h) in, affinities (N, C) out. In training it needs the labels, for the softmax part."""

    def build(self, features_shape: tuple[int | None, int], labels_shape: Any = None) -> None:
        """As `AffinityHead`, and the dense layer of the softmax part."""
        super().build(features_shape, labels_shape)
        self.dense = keras.layers.Dense(self.n_classes, dtype="float32", name="logits")
        self.dense.build(features_shape)
        self.share = setting(self, "share", ARTICLE_SHARE)

    def call(self, features: Tensor, labels: Tensor = None, training: bool = False) -> Tensor:
        """Affinities d (N, C). Raises ValueError in training without `labels` (N,)."""
        if training and labels is None:
            raise ValueError("the joint head trains a softmax beside the affinities: call it with the labels too")
        affinity = super().call(features, labels, training=training)
        if training:
            logits = self.dense(ops.cast(features, "float32"))
            self.add_loss(ops.convert_to_tensor(self.share) * ops.mean(cross_entropy(labels, logits)))
        return affinity

    def begin(self, params: Params, seed: int) -> None:
        """As `AffinityHead`, with `softmax_share` too."""
        own = dict(params)
        if "softmax_share" not in own:
            raise ValueError(f"the joint head takes softmax_share too, and was given {', '.join(own)}")
        require_amounts(own, "softmax_share")
        share = own.pop("softmax_share")
        super().begin(own, seed)
        self.share.assign(share)
        redraw(self.dense, seed + 1)  # the centres are drawn from the seed itself
