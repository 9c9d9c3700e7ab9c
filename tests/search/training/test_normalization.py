"""The fused batch norm means what Keras' means: outputs, gradients and moving statistics."""

import numpy as np
import pytest

from affinity_search.search import devices

DEVICE = devices.configure("cpu", 2)

import keras  # the device comes first
from keras import ops

from affinity_search.search.devices.device import Wanted
from affinity_search.search.devices.jax.device import JaxDevice
from affinity_search.search.devices.kinds import CPU, GPU
from affinity_search.search.training.heads.affinity import squared_distances
from affinity_search.search.training.networks.normalization import BatchNorm
from affinity_search.search.training.networks.plain import HalvingPool

IMAGES = np.random.default_rng(0).normal(3.0, 2.0, (6, 5, 4, 7)).astype("float32")


def built(layer, dtype):
    layer = layer(momentum=0.9, dtype=dtype)
    layer.build(IMAGES.shape)
    rng = np.random.default_rng(1)
    layer.gamma.assign(rng.normal(1, 0.3, 7))
    layer.beta.assign(rng.normal(0, 1, 7))
    return layer


# On a GPU one step of bfloat16 between 4 and 8, which is 0.031, may be another.
HALF = 3e-2 if DEVICE.kind is CPU else 4e-2


@pytest.fixture(params=[("float32", 1e-5), ("mixed_bfloat16", HALF)], ids=str)
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


@pytest.fixture
def on_a_gpu(monkeypatch):
    """The device of the tests, with what JAX does on a GPU; it computes here."""
    operations = pytest.importorskip("affinity_search.search.devices.jax.operations")
    if devices.backend() != "jax":
        pytest.skip("these operations are JAX's")
    monkeypatch.setattr(type(DEVICE), "fused_batch_norm", lambda self: operations.batch_norm)
    monkeypatch.setattr(type(DEVICE), "average_pool", lambda self: operations.average_pool)


def test_they_are_taken_on_a_gpu_alone():
    operations = pytest.importorskip("affinity_search.search.devices.jax.operations")
    on_gpu, on_cpu = (JaxDevice(Wanted(kind)) for kind in (GPU, CPU))
    assert on_gpu.fused_batch_norm() is operations.batch_norm
    assert on_gpu.average_pool() is operations.average_pool
    assert on_cpu.fused_batch_norm() is on_cpu.average_pool() is None


def test_the_layers_take_what_the_device_has(monkeypatch):
    images = np.ones((2, 4, 4, 3), "float32")
    pool, norm = HalvingPool(2), BatchNorm(momentum=0.9)
    plain = to_numpy(pool(images)), to_numpy(norm(images, training=False))
    monkeypatch.setattr(type(DEVICE), "average_pool", lambda self: lambda images: images * 7.0)
    monkeypatch.setattr(type(DEVICE), "fused_batch_norm", lambda self: lambda images, *how: (images * 7.0, how))
    assert (to_numpy(pool(images)) == 7.0).all()
    assert (to_numpy(norm(images, training=False)) == 7.0).all()
    assert not (plain[0] == 7.0).any()
    assert not (plain[1] == 7.0).any()
    assert (to_numpy(HalvingPool(4)(images)) == 1.0).all(), "the device's operation is for 2 alone"


@pytest.mark.usefixtures("on_a_gpu")
class TestJaxOnAGpu:
    def test_training_and_inference(self, pair):
        test_training_and_inference(pair)

    @pytest.mark.parametrize("far", [0.0, 3000.0])
    def test_gradients(self, pair, far):
        """Also of channels that lie far from 0: there E[x²] − E[x]² has no digit left."""
        import jax

        theirs, ours, tolerance = pair
        if far and tolerance > 1e-3:
            pytest.skip("bfloat16 itself has no digit left there")
        weights = np.random.default_rng(2).normal(size=IMAGES.shape).astype("float32")

        def gradients(layer):
            fixed = [variable.value for variable in layer.non_trainable_variables]

            def total(images, trained):
                outputs, _ = layer.stateless_call(trained, fixed, images, training=True)
                return (outputs.astype("float32") * weights).sum()

            trained = [variable.value for variable in layer.trainable_variables]
            of_images, of_trained = jax.jit(jax.grad(total, (0, 1)))(IMAGES + far, trained)
            return [of_images, *of_trained]

        slack = 100 if far else 1
        for expected, found in zip(gradients(theirs), gradients(ours), strict=True):
            expected, found = to_numpy(expected), to_numpy(found)
            assert found == pytest.approx(expected, abs=20 * slack * tolerance, rel=tolerance)

    @pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
    @pytest.mark.parametrize("shape", [(2, 6, 4, 3), (2, 7, 5, 3)])
    def test_average_pooling(self, shape, dtype):
        images = np.random.default_rng(3).normal(size=shape).astype("float32")
        expected = keras.layers.AveragePooling2D(2, dtype=dtype)(images)
        found = HalvingPool(2, dtype=dtype)(images)
        assert found.dtype == expected.dtype
        assert to_numpy(found) == pytest.approx(to_numpy(expected), abs=1e-6 if dtype == "float32" else 1e-2)


def test_a_head_s_products_are_exact_in_its_gradients_too():
    """What XLA is told; on a CPU products are exact in any case."""
    if devices.backend() != "jax":
        pytest.skip("the scope is JAX's")
    import jax

    def distances(a, b):
        return squared_distances(a, b).sum()

    features, centers = np.ones((3, 4), "float32"), np.ones((2, 4), "float32")
    told = str(jax.make_jaxpr(jax.grad(distances, (0, 1)))(features, centers))
    assert told.count("dot_general") == told.count("Precision.HIGHEST, Precision.HIGHEST") > 1, told


def test_features_without_rows_and_columns_are_keras_own():
    flat = BatchNorm(momentum=0.9)
    flat.build((6, 7))
    assert to_numpy(flat(IMAGES[:, 0, 0], training=True)).mean() == pytest.approx(0, abs=1e-5)
    assert devices.backend() != "tensorflow" or DEVICE.fused_batch_norm() is not None
