"""The fused batch norm means what Keras' means: outputs, gradients and moving statistics."""

import numpy as np
import pytest

from affinity_search.search import devices

DEVICE = devices.configure("cpu", 2)

import keras  # the device comes first
from keras import ops

from affinity_search.search.training.networks.normalization import BatchNorm

IMAGES = np.random.default_rng(0).normal(3.0, 2.0, (6, 5, 4, 7)).astype("float32")


def built(layer, dtype):
    layer = layer(momentum=0.9, dtype=dtype)
    layer.build(IMAGES.shape)
    rng = np.random.default_rng(1)
    layer.gamma.assign(rng.normal(1, 0.3, 7))
    layer.beta.assign(rng.normal(0, 1, 7))
    return layer


@pytest.fixture(params=[("float32", 1e-5), ("mixed_bfloat16", 3e-2)], ids=str)
def pair(request):
    """Keras' layer, ours, and the tolerance of the precision."""
    dtype, tolerance = request.param
    return built(keras.layers.BatchNormalization, dtype), built(BatchNorm, dtype), tolerance


def to_numpy(value):
    return ops.convert_to_numpy(ops.cast(value, "float32"))


def test_training_and_inference(pair):
    theirs, ours, tolerance = pair
    for training in (True, True, False):
        expected, found = (layer(IMAGES, training=training) for layer in (theirs, ours))
        assert found.dtype == expected.dtype
        assert to_numpy(found) == pytest.approx(to_numpy(expected), abs=tolerance)
        for expected, found in zip(theirs.weights, ours.weights, strict=True):
            assert to_numpy(found) == pytest.approx(to_numpy(expected), rel=1e-3, abs=tolerance / 10)


@pytest.mark.skipif(devices.backend() != "tensorflow", reason="the fused operation is TensorFlow's")
def test_gradients(pair):
    import tensorflow as tf

    weights = np.random.default_rng(2).normal(size=IMAGES.shape).astype("float32")

    def gradients(layer):
        images = tf.Variable(IMAGES)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tf.cast(layer(images, training=True), "float32") * weights)
        return tape.gradient(total, [images, *(variable.value for variable in layer.trainable_variables)])

    theirs, ours, tolerance = pair
    for expected, found in zip(gradients(theirs), gradients(ours), strict=True):
        assert to_numpy(found) == pytest.approx(to_numpy(expected), abs=20 * tolerance, rel=tolerance)


def test_features_without_rows_and_columns_are_keras_own():
    flat = BatchNorm(momentum=0.9)
    flat.build((6, 7))
    assert to_numpy(flat(IMAGES[:, 0, 0], training=True)).mean() == pytest.approx(0, abs=1e-5)
    assert devices.backend() != "tensorflow" or DEVICE.fused_batch_norm() is not None
