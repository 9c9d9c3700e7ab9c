"""Each kind of network: what it computes, what it takes, and that its runs begin anew and go on like any other's."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from affinity_search.search import devices

DEVICE = devices.configure("cpu", 2)

import keras  # the device comes first
from keras import ops

from affinity_search.search.training import checkpoints
from affinity_search.search.training.data.splits import Split
from affinity_search.search.training.fit import Trainer, TrainingConfig, TrainingResult
from affinity_search.search.training.networks import NETWORKS
from affinity_search.search.training.networks.building import (
    NetworkConfig,
    build_network,
    reset_network,
    trainable_state,
)
from affinity_search.search.training.networks.features import features_of
from affinity_search.search.training.networks.layers import Table
from affinity_search.studies.networks import NETWORKS as DECLARED

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 7, 6, 3), np.uint8)  # neither square nor of even sides
VECTORS = RNG.normal(size=(20, 5)).astype("float32")
CASES = [("plain", IMAGES), ("resnet32", IMAGES), ("mlp", IMAGES), ("mlp", VECTORS)]
NAMES = ["plain", "resnet32", "mlp", "mlp on vectors"]
KINDS = pytest.mark.parametrize(("kind", "inputs"), CASES, ids=NAMES)


def config(kind, widths=(4, 6), depth=1, head="softmax"):
    return NetworkConfig(widths, depth, 0.9, head, kind=kind)


def build(kind, inputs, *, widths=(4, 6), depth=1, **options):
    return build_network(config(kind, widths, depth), inputs, (5,) * 4, **options)


def values(model):
    return {variable.path: ops.convert_to_numpy(variable).copy() for variable in trainable_state(model)}


def scribble(model, seed=1):
    """Other values in every variable."""
    random = np.random.default_rng(seed)
    for variable in trainable_state(model):
        low = 0.5 if "variance" in variable.path else -0.5
        variable.assign(random.uniform(low, 1, variable.shape).astype("float32"))


def count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


def test_resnet_32_has_the_weights_of_the_paper():
    """0.46 million, table 6 of He et al.; our batch norms keep 2 · 1136 moving statistics beside them."""
    images = np.zeros((2, 32, 32, 3), np.uint8)
    model = build_network(config("resnet32", (16, 32, 64), 5), images, (1,) * 10)
    assert count(model.trainable_variables) == 464_154
    assert count(trainable_state(model)) == 464_154 + 2 * (11 * 16 + 10 * 32 + 10 * 64)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 31, "with the dense layer 32"
    assert not any(isinstance(layer, keras.layers.AveragePooling2D) for layer in model.layers)


def convolved(image, kernel, stride):
    """(H, W, channels) with zeros around; the window of each `stride`-th pixel lies around it."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    height, width = image.shape[:2]
    return np.array(
        [
            [np.tensordot(padded[y : y + 3, x : x + 3], kernel, 3) for x in range(0, width, stride)]
            for y in range(0, height, stride)
        ]
    )


def normed(x, weights, name):
    mean, variance = weights[f"norm_{name}/moving_mean"], weights[f"norm_{name}/moving_variance"]
    return (x - mean) / np.sqrt(variance + 1e-3) * weights[f"norm_{name}/gamma"] + weights[f"norm_{name}/beta"]


def residual_features(image, weights, depth, widths):
    """He et al., figure 2 and section 4.2, one image and one pixel after the other."""
    x = np.maximum(normed(convolved(image / 255, weights["conv_stem/kernel"], 1), weights, "stem"), 0)
    for stage, width in enumerate(widths):
        for number in range(depth):
            name, stride = f"{stage}_{number}", 2 if stage and not number else 1
            inner = np.maximum(normed(convolved(x, weights[f"conv_{name}_0/kernel"], stride), weights, f"{name}_0"), 0)
            inner = normed(convolved(inner, weights[f"conv_{name}_1/kernel"], 1), weights, f"{name}_1")
            shortcut = np.zeros_like(inner)
            shortcut[:, :, : x.shape[-1]] = x[::stride, ::stride]
            x = np.maximum(inner + shortcut, 0)
        assert x.shape[-1] == width
    return x.mean(axis=(0, 1))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 6), (4, 9)])
def test_residual_blocks_are_those_of_the_paper(height, width):
    images = np.random.default_rng(3).integers(0, 256, (4, height, width, 3), np.uint8)
    model = build("resnet32", images, widths=(3, 5, 5), depth=2)
    scribble(model, seed=4)
    found = ops.convert_to_numpy(features_of(model)(np.arange(4, dtype="int32")))
    for image, features in zip(images, found, strict=True):
        assert features == pytest.approx(residual_features(image, values(model), 2, (3, 5, 5)), rel=1e-3, abs=1e-4)


def test_a_shortcut_adds_channels_and_drops_none():
    with pytest.raises(ValueError, match=r"widths of resnet32 must not fall.*\(6, 4\)"):
        build("resnet32", IMAGES, widths=(6, 4))


def test_residual_convolutions_begin_as_he_et_al_draw_them():
    """A normal distribution of variance 2 / fan in, cut off and so a little narrower before Keras widens it."""
    model = build("resnet32", IMAGES, widths=(64, 64))
    reset_network(model, {}, seed=3)
    for name in ("conv_0_0_1", "conv_1_0_0"):
        kernel = ops.convert_to_numpy(model.get_layer(name).kernel)
        assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)


def dense_features(x, weights, widths):
    for block in range(len(widths)):
        x = np.maximum(normed(x @ weights[f"dense_{block}_0/kernel"], weights, f"{block}_0"), 0)
    return x


@pytest.mark.parametrize("inputs", [IMAGES, VECTORS], ids=["images", "vectors"])
def test_an_mlp_is_dense_layers_on_all_values(inputs):
    model = build("mlp", inputs)
    scribble(model)
    weights = values(model)
    if inputs is VECTORS:
        x = (inputs - weights["standardise/moving_mean"]) / np.sqrt(weights["standardise/moving_variance"])
    else:
        x = inputs.reshape(20, -1) / 255
    expected = dense_features(x, weights, (4, 6))
    assert 0.1 < (expected == 0).mean() < 0.9, "some of the sums are below 0"
    found = ops.convert_to_numpy(features_of(model)(np.arange(20, dtype="int32")))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_without_widths_the_head_gets_the_values_themselves():
    model = build("mlp", IMAGES, widths=())
    found = ops.convert_to_numpy(features_of(model)(np.int32([3, 5])))
    assert found == pytest.approx(IMAGES[[3, 5]].reshape(2, -1) / 255, abs=1e-6)
    assert count(model.trainable_variables) == 7 * 6 * 3 * 4 + 4
    for kind in ("plain", "resnet32"):
        with pytest.raises(ValueError, match="positive"):
            config(kind, ())


@KINDS
def test_a_second_trial_begins_as_a_fresh_network(kind, inputs):
    fresh, used = build(kind, inputs, depth=2), build(kind, inputs, depth=2)
    scribble(used)
    for model in (fresh, used):
        reset_network(model, {}, seed=4)
    first = values(fresh)
    assert all((first[path] == value).all() for path, value in values(used).items())
    reset_network(used, {}, seed=5)
    kernels = [path for path in first if path.endswith("kernel")]
    assert len(kernels) >= 5
    assert all((first[path] != values(used)[path]).any() for path in kernels)


@KINDS
def test_mixed_precision_ends_in_float32(kind, inputs):
    model = build(kind, inputs, precision="mixed_bfloat16")
    computed = {layer.name: layer.compute_dtype for layer in model.layers}
    assert {dtype for name, dtype in computed.items() if name.startswith(("conv", "dense"))} == {"bfloat16"}
    assert computed["features"] == computed["head"] == computed.get("standardise", "float32") == "float32"
    reset_network(model, {}, seed=2)
    model(np.arange(20, dtype="int32"), training=True)  # moving statistics like those of the images
    found = ops.convert_to_numpy(model(np.int32([0, 1])))
    exact = build(kind, inputs)
    for variable, other in zip(trainable_state(exact), trainable_state(model), strict=True):
        variable.assign(other)
    assert found == pytest.approx(ops.convert_to_numpy(exact(np.int32([0, 1]))), abs=0.1)


@KINDS
def test_the_table_keeps_the_kind_of_its_values(kind, inputs):
    table = next(layer for layer in build(kind, inputs).layers if isinstance(layer, Table))
    assert keras.backend.standardize_dtype(table.table.dtype) == inputs.dtype
    assert (ops.convert_to_numpy(table(np.int32([4, 2]))) == inputs[[4, 2]]).all()


@pytest.mark.parametrize(
    ("kind", "inputs", "options", "sentence"),
    [
        ("plain", VECTORS, {}, "plain takes images, and these are vectors of 5 values; use mlp"),
        ("resnet32", VECTORS, {}, "resnet32 takes images, and these are vectors of 5 values; use mlp"),
        ("mlp", VECTORS, {"augmentation": (1, False)}, "augmentation shifts and mirrors images"),
        ("mlp", VECTORS.astype("float64"), {}, r"float64 of shape \(20, 5\); images are uint8"),
        ("plain", IMAGES[..., 0], {}, r"uint8 of shape \(20, 7, 6\); images are uint8"),
        ("resnet32", IMAGES, {"widths": (2, 2, 2, 2)}, r"images of \(7, 6\) pixels are too small for 4 widths"),
        ("plain", IMAGES[:, :3], {"widths": (2, 2, 2)}, r"images of \(3, 6\) pixels are too small for 3 widths"),
    ],
)
def test_what_a_network_cannot_take_is_refused(kind, inputs, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(kind, inputs, **options)


def test_an_mlp_may_have_more_widths_than_an_image_can_be_halved():
    assert build("mlp", IMAGES[:, :1], widths=(2,) * 6).get_layer("features").output.shape == (None, 2)


# Three classes, told apart by two columns of five; the columns have scales from a thousandth to ten thousand.
SCALES = np.array([1e-3, 1, 1e4, 10, 1e2])


def rows(n, seed):
    random = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int32) % 3
    means = np.array([[2, 0, 0, 0, 0], [0, 0, 2, 0, 0], [-2, 0, -2, 0, 0]])
    return Split((random.normal(size=(n, 5)) + means[labels]).astype("float32"), labels)


def scaled(split, scales):
    return replace(split, images=(split.images * scales).astype("float32"))


FACTS = SimpleNamespace(name="rows", shape=(5,), n_classes=3, shift_px=0, flip=False)
TRAINING = TrainingConfig(epochs=3, batch=32, learning_rate=1e-2)


def on_vectors(train, evaluation, head="softmax", widths=(16,), training=TRAINING, **options):
    return Trainer(DEVICE, train, evaluation, FACTS, config("mlp", widths, 1, head), training, **options)


@pytest.mark.parametrize(
    ("head", "widths", "params"),
    [("softmax", (), {}), ("softmax", (16,), {}), ("affinity", (16,), {"lambda": 0.5, "sigma": 10.0, "n_centers": 1})],
)
def test_vectors_of_any_scale_are_learnt(head, widths, params):
    train, evaluation, test = (scaled(rows(n, seed), SCALES) for n, seed in ((300, 1), (90, 2), (90, 3)))
    training = replace(TRAINING, epochs=8, learning_rate=0.03)
    trainer = on_vectors(train, evaluation, head, widths, training, test=test)
    assert trainer.run(params, seed=1).best.scores.macro_f1 > 0.85, "chance is 0.33"
    assert trainer.score_test()[0].macro_f1 > 0.8
    assert trainer.features().values.dtype == np.float32


def test_a_column_s_scale_changes_nothing():
    runs = [
        on_vectors(scaled(rows(96, 1), scales), scaled(rows(60, 2), scales)).run({}, seed=1)
        for scales in (np.ones(5), np.array([64, 0.25, 1, 2048, 0.125]))
    ]
    first, second = ([epoch.loss for epoch in run.epochs] for run in runs)
    assert first == pytest.approx(second, rel=1e-3)
    assert [epoch.scores.confusion for epoch in runs[0].epochs] == [epoch.scores.confusion for epoch in runs[1].epochs]


def test_other_vectors_take_the_place_of_the_first():
    trainer = on_vectors(rows(96, 1), rows(60, 2))
    trainer.run({}, seed=1)
    trainer.use(rows(96, 5), rows(60, 6))
    expected = on_vectors(rows(96, 5), rows(60, 6)).run({}, seed=2)
    assert outcome(trainer.run({}, seed=2)) == outcome(expected)
    with pytest.raises(ValueError, match="has room for"):
        trainer.use(rows(95, 5), rows(60, 6))


def outcome(result):
    """All but the durations."""
    return [(epoch.loss, epoch.scores) for epoch in result.epochs]


def trainer_of(kind, inputs):
    many = np.concatenate([inputs] * 3)
    split = Split(many, np.arange(len(many), dtype=np.int32) % 3)
    training = replace(TRAINING, batch=16, augment=inputs.ndim == 4)
    facts = SimpleNamespace(**vars(FACTS) | {"shape": inputs.shape[1:], "shift_px": 1, "flip": True})
    return Trainer(DEVICE, split, split.take(np.arange(30)), facts, config(kind, depth=2), training)


@KINDS
def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(kind, inputs, tmp_path):
    whole = trainer_of(kind, inputs)
    expected = outcome(whole.run({}, seed=3))
    for _ in whole.epochs({}, seed=3):
        checkpoints.save(tmp_path / "state", whole.state(), {})
        break
    other = trainer_of(kind, inputs)
    other.run({}, seed=8)
    epochs = other.epochs({}, seed=3, resume=checkpoints.load(tmp_path / "state", {}))
    assert outcome(TrainingResult(tuple(epochs))) == expected
    assert outcome(other.run({}, seed=3)) == expected, "a run depends on its seed alone"


@pytest.mark.parametrize("name", DECLARED)
def test_a_network_is_what_its_declaration_says(name):
    declared, made = DECLARED[name], NETWORKS[name]
    assert (declared.vectors, declared.halves, declared.bare) == (made.vectors, made.halves, made.bare)
    images = np.zeros((2, 9, 8, 3), np.uint8)
    model = build_network(config(name, (4, 6, 6), 2), images, (1, 1))
    kernels = [layer.kernel for layer in model.layers[:-1] if hasattr(layer, "kernel") and layer.name != "conv_stem"]
    assert len(kernels) == 6 * max(1, declared.convolutions)
    before = 4 if name == "resnet32" else 3 if declared.convolutions else 9 * 8 * 3  # its stem has made 4 channels
    assert sum(declared.weights((4, 6, 6), 2, before)) == sum(int(np.prod(kernel.shape)) for kernel in kernels)
    falls = config(name, (6, 4))
    if declared.rises:
        with pytest.raises(ValueError, match="must not fall"):
            build_network(falls, images, (1, 1))
    else:
        build_network(falls, images, (1, 1))


def test_every_network_is_tested_here():
    assert {kind for kind, _ in CASES} == set(NETWORKS)


@KINDS
def test_xla_computes_the_same(kind, inputs, monkeypatch):
    plain = trainer_of(kind, inputs).run({}, seed=3)
    monkeypatch.setattr(DEVICE, "compiles_with_xla", lambda: True, raising=False)
    compiled = trainer_of(kind, inputs).run({}, seed=3)
    assert compiled.epochs[0].loss == pytest.approx(plain.epochs[0].loss, rel=1e-3)
