import numpy as np
import pytest

from affinity_search.search import devices

devices.configure("cpu", 2)

import keras  # the device comes first
from keras import ops

from affinity_search.search.training.networks.building import (
    NetworkConfig,
    build_network,
    layer_seeds,
    reset_network,
    trainable_state,
)
from affinity_search.search.training.networks.layers import Augmentation, Table

IMAGES = np.random.default_rng(0).integers(1, 256, (30, 8, 8, 1), np.uint8)
IMAGES[7] = 0  # one unlike the others


def build(head="affinity", widths=(4, 6), depth=1, images=IMAGES, **options):
    return build_network(NetworkConfig(widths, depth, 0.9, head), images, (3,) * 10, **options)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


BLOCK = ["Conv2D", "BatchNorm", "ReLU"]


def test_layers_of_the_mnist_network():
    model = build(widths=(32, 64, 128), images=np.zeros((2, 28, 28, 1), np.uint8))
    pooled = [*BLOCK, "HalvingPool", *BLOCK, "HalvingPool", *BLOCK, "GlobalAveragePooling2D"]
    assert kinds(model) == ["InputLayer", "Table", "Scale", *pooled, "BatchNorm", "AffinityHead"]
    assert model.get_layer("features").output.shape == (None, 128)


def test_depth_repeats_the_convolutions_and_softmax_has_no_last_norm():
    model = build("softmax", widths=(4, 6, 8), depth=3, images=np.zeros((2, 32, 32, 3), np.uint8))
    assert kinds(model).count("Conv2D") == 9
    assert kinds(model)[-2:] == ["GlobalAveragePooling2D", "SoftmaxHead"]


@pytest.mark.parametrize("head", ["affinity", "softmax"])
def test_the_input_is_an_index_into_the_table(head):
    model = build(head)
    outputs = ops.convert_to_numpy(model(np.int32([3, 7, 3])))
    assert outputs.shape == (3, 10)
    assert outputs[0] == pytest.approx(outputs[2], rel=1e-4), "rounding may depend on the place in the batch"
    assert outputs[0] != pytest.approx(outputs[1], rel=1e-3)


def test_the_table_holds_the_images_as_bytes_and_never_trains():
    table = Table(IMAGES)
    assert (ops.convert_to_numpy(table(np.int32([5, 2]))) == IMAGES[[5, 2]]).all()
    assert keras.backend.standardize_dtype(table.table.dtype) == "uint8"
    assert not table.trainable_variables


def test_mixed_precision_computes_in_bfloat16_and_ends_in_float32():
    model = build(precision="mixed_bfloat16", augmentation=(1, True))
    computed = {layer.name: layer.compute_dtype for layer in model.layers}
    assert {dtype for name, dtype in computed.items() if name.startswith("conv")} == {"bfloat16"}
    assert computed["features"] == computed["head_norm"] == computed["head"] == "float32"
    assert {str(variable.dtype) for variable in model.trainable_variables} == {"float32"}


def augment(images, shift_px, flip, seed=1):
    layer = Augmentation(shift_px, flip)
    layer.begin(seed)
    return ops.convert_to_numpy(layer(images, training=True))


def shifted(image, dy, dx):
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    return padded[2 + dy : 10 + dy, 2 + dx : 10 + dx]


def test_every_augmented_image_is_a_shift_of_its_own_image_and_all_shifts_occur():
    images = np.random.default_rng(0).integers(1, 256, (400, 8, 8, 1), np.uint8)
    seen = set()
    for before, after in zip(images, augment(images, 2, flip=False), strict=True):
        found = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if (shifted(before, y, x) == after).all()]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) == 25


def test_flip_mirrors_about_half_of_the_images():
    images = np.random.default_rng(0).integers(1, 256, (400, 8, 8, 3), np.uint8)
    after = augment(images, 0, flip=True)
    same, mirrored = ((after == other).all(axis=(1, 2, 3)) for other in (images, images[:, :, ::-1]))
    assert (same ^ mirrored).all()
    assert 140 < mirrored.sum() < 260


def test_augmentation_only_in_training_and_by_seed():
    assert (ops.convert_to_numpy(Augmentation(2, True)(IMAGES, training=False)) == IMAGES).all()
    assert (augment(IMAGES, 2, True, seed=1) == augment(IMAGES, 2, True, seed=1)).all()
    assert (augment(IMAGES, 2, True, seed=1) != augment(IMAGES, 2, True, seed=2)).any()


def values(model):
    return [ops.convert_to_numpy(variable).copy() for variable in trainable_state(model)]


def test_reset_brings_back_every_variable_but_the_trials_own():
    model = build("softmax", augmentation=(1, False))
    reset_network(model, {}, seed=4)
    first = values(model)
    for variable in trainable_state(model):
        variable.assign(np.full(variable.shape, 7, str(variable.dtype)))
    reset_network(model, {}, seed=4)
    assert all((a == b).all() for a, b in zip(first, values(model), strict=True))
    reset_network(model, {}, seed=5)
    assert any((a != b).any() for a, b in zip(first, values(model), strict=True))


def test_reset_draws_what_keras_draws():
    """Glorot uniform has the limit √(6 / (fan in + fan out))."""
    model = build("softmax", widths=(32, 64))
    reset_network(model, {}, seed=0)
    kernel = ops.convert_to_numpy(model.layers[-1].kernel)
    limit = np.sqrt(6 / (64 + 10))
    assert 0.95 * limit < np.abs(kernel).max() <= limit
    first, second = (layer.kernel for layer in model.layers if layer.name.startswith("conv"))
    assert ops.convert_to_numpy(first).ravel()[0] != ops.convert_to_numpy(second).ravel()[0]


def test_reset_gives_batch_norm_what_a_fresh_one_has():
    fresh, used = build("softmax"), build("softmax")
    for variable in trainable_state(used):
        variable.assign(np.full(variable.shape, 7, str(variable.dtype)))
    reset_network(used, {}, seed=0)
    pairs = [(f, u) for f, u in zip(fresh.layers, used.layers, strict=True) if "norm" in f.name]
    assert len(pairs) == 2
    for before, after in pairs:
        for expected, found in zip(before.get_weights(), after.get_weights(), strict=True):
            assert (expected == found).all()


def with_layer(layer):
    indices = keras.Input(shape=(), dtype="int32")
    x = Table(IMAGES, name="images")(indices)
    return keras.Model(indices, keras.layers.Flatten()(layer(ops.cast(x, "float32"))))


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.SeparableConv2D(2, 3),
        keras.layers.SpectralNormalization(keras.layers.Conv2D(2, 3)),
        keras.Sequential([keras.layers.Conv2D(2, 3)]),
        keras.layers.Dropout(0.5),
    ],
)
def test_a_layer_that_would_keep_the_last_trial_s_values_is_refused(layer):
    model = with_layer(layer)
    with pytest.raises(TypeError, match=rf"layer '{layer.name}' .*of the last trial; give it .*_initializer"):
        reset_network(model, {}, seed=0)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.GroupNormalization(1, gamma_initializer="random_normal"),
        keras.layers.Conv2D(2, 3, kernel_initializer="he_normal", bias_initializer="ones"),
        keras.layers.Conv2DTranspose(2, 3),
        keras.layers.PReLU(alpha_initializer="random_normal"),
    ],
)
def test_a_layer_is_redrawn_by_its_own_initializers(layer):
    model = with_layer(layer)
    reset_network(model, {}, seed=4)
    first = [value.copy() for value in layer.get_weights()]
    for variable in layer.variables:
        variable.assign(np.full(variable.shape, 7, "float32"))
    reset_network(model, {}, seed=4)
    assert all((before == after).all() for before, after in zip(first, layer.get_weights(), strict=True))
    reset_network(model, {}, seed=5)
    assert any((before != after).any() for before, after in zip(first, layer.get_weights(), strict=True))
    assert not any((value == 7).any() for value in layer.get_weights())
    if getattr(layer, "use_bias", False) and isinstance(layer.bias_initializer, keras.initializers.Ones):
        assert (layer.get_weights()[1] == 1).all()


def test_what_a_seed_draws_stays_the_same_from_version_to_version():
    """A stored study goes on with the values that it began with."""
    model = build("softmax")
    reset_network(model, {}, seed=4)
    for layer, layer_seed in zip(model.layers, layer_seeds(model, 4), strict=True):
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            drawn = keras.initializers.GlorotUniform(seed=layer_seed)(layer.kernel.shape, dtype="float32")
            assert (ops.convert_to_numpy(drawn) == ops.convert_to_numpy(layer.kernel)).all()


def test_training_state_holds_everything_but_the_images():
    model = build(augmentation=(1, False))
    model.compile(optimizer="adam", loss=model.get_layer("head").loss)
    model.optimizer.build(model.trainable_variables)
    kept = trainable_state(model)
    shapes = [tuple(variable.shape) for variable in kept]
    assert IMAGES.shape not in shapes
    assert len(kept) == len(model.variables) - 1 + len(model.optimizer.variables)
    assert any(variable is model.get_layer("augmentation").random.state for variable in kept)


@pytest.mark.parametrize(
    "bad",
    [((), 1, 0.9, "affinity"), ((4, 0), 1, 0.9, "affinity"), ((4,), 0, 0.9, "affinity"), ((4,), 1, 1.0, "affinity")],
)
def test_impossible_configurations_are_refused(bad):
    with pytest.raises(ValueError, match="positive"):
        NetworkConfig(*bad)


def test_unknown_heads_and_too_small_images_are_refused():
    with pytest.raises(ValueError, match="affinity, joint, softmax"):
        NetworkConfig((4,), 1, 0.9, "cosine")
    with pytest.raises(ValueError, match="too small"):
        build(widths=(2, 2, 2, 2, 2))
