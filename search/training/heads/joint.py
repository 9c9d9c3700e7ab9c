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
    """Features (N, h) in, affinities (N, C) out; in training (N, 2C), the logits of the softmax part after them.

    So the loss has both parts of each image, and whatever weighs the image's loss weighs both.
    """

    def build(self, features_shape: tuple[int | None, int], labels_shape: Any = None) -> None:
        """As `AffinityHead`, and the dense layer of the softmax part."""
        super().build(features_shape, labels_shape)
        self.dense = keras.layers.Dense(self.n_classes, dtype="float32", name="logits")
        self.dense.build(features_shape)
        self.share = setting(self, "share", ARTICLE_SHARE)

    def call(self, features: Tensor, labels: Tensor = None, training: bool = False) -> Tensor:
        """Affinities d (N, C), in training with logits beside them; `labels` as in `AffinityHead`."""
        affinity = super().call(features, labels, training=training)
        if not training:
            return affinity
        return ops.concatenate([affinity, self.dense(ops.cast(features, "float32"))], axis=1)

    def loss(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """As `AffinityHead`, of what `call` gives: with the softmax part if there are logits."""
        hinge = super().loss(labels, outputs[:, : self.n_classes])
        if outputs.shape[1] == self.n_classes:
            return hinge
        beside = cross_entropy(labels, outputs[:, self.n_classes :])
        return hinge + ops.convert_to_tensor(self.share) * beside

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
