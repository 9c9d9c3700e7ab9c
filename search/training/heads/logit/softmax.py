"""The baseline: softmax cross-entropy.

L = −log softmax(z)_y
"""

import keras

from affinity_search.search.training.heads.logit.layer import LogitHead


@keras.saving.register_keras_serializable(package="affinity_search")
class SoftmaxHead(LogitHead):
    """Features (N, h) in, logits (N, C) out; without parameters of its own."""
