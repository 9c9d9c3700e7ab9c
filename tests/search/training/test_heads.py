"""Every head's loss against its equation written out loop by loop, value and gradient; what heads have in common."""

import math

import numpy as np
import pytest

from affinity_search.search import devices

devices.configure("cpu", 2)

import keras  # the device comes first
from keras import ops

from affinity_search.search.training.heads import HEADS, head_class
from affinity_search.studies.heads import HEADS as DECLARED
from tests import reference_affinity, reference_heads

to_numpy = ops.convert_to_numpy
ROOM = 3
SIZES = ((50, 5, 20), (500, 0, 30, 7), (1, 1, 1))  # one class without training images

# Of a trial; each function draws some that are possible.
PARAMS = {
    "affinity": lambda rng: margins(rng) | {"margin_power": rng.uniform(0, 1)},
    "joint": lambda rng: margins(rng) | {"softmax_share": rng.uniform(0, 3), "margin_power": rng.uniform(0, 1)},
    "softmax": lambda rng: {},
    "weighted": lambda rng: {"class_weight_power": rng.uniform(0, 2)},
    "class_balanced": lambda rng: {"one_minus_beta": 10 ** rng.uniform(-5, 0)},
    "focal": lambda rng: {"gamma": rng.uniform(0, 4), "class_weight_power": rng.uniform(0, 1)},
    "logit_adjusted": lambda rng: {"tau": rng.uniform(0, 3)},
    "ldam": lambda rng: {"max_margin": rng.uniform(0, 1), "scale": rng.uniform(1, 30)},
}


def margins(rng):
    return {"lambda": rng.uniform(0.05, 1), "sigma": rng.uniform(1, 20), "n_centers": int(rng.integers(1, ROOM))}


def made(name, class_sizes, width, params, seed=0):
    """A head that has begun a trial."""
    head = head_class(name).make(class_sizes, ROOM)
    head.build((None, width))
    head.begin(params, seed)
    return head


def value_and_gradients(head, features, labels):
    """The whole loss with its gradients for features and trained weights, on whichever backend runs."""
    more = (labels,) if head.takes_labels else ()
    if keras.backend.backend() == "jax":
        import jax

        fixed = [variable.value for variable in head.non_trainable_variables]

        def total(at, trained):
            scores, _, added = head.stateless_call(trained, fixed, at, *more, training=True, return_losses=True)
            return ops.mean(head.loss(labels, scores)) + sum(added)

        trained = [variable.value for variable in head.trainable_variables]
        value, (by_features, by_weights) = jax.value_and_grad(total, argnums=(0, 1))(features, trained)
    else:
        import tensorflow as tf

        at = tf.constant(features)
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = ops.mean(head.loss(labels, head(at, *more, training=True))) + sum(head.losses)
        trained = [variable.value for variable in head.trainable_variables]
        by_features, by_weights = tape.gradient(value, (at, trained))
    return float(value), to_numpy(by_features), [to_numpy(each) for each in by_weights]


def problem(name, seed):
    """Head, features and labels, away from the kinks of the affinity loss."""
    for at in range(seed, seed + 10_000, 100):
        rng = np.random.default_rng(at)
        class_sizes = SIZES[seed % len(SIZES)]
        n, width = int(rng.integers(1, 7)), int(rng.integers(2, 6))
        params = PARAMS[name](rng)
        features = rng.normal(0, rng.choice([0.3, 1.0, 3.0]), (n, width)).astype("float32")
        labels = rng.integers(0, len(class_sizes), n).astype("int32")
        head = made(name, class_sizes, width, params, at)
        for variable in head.trainable_variables:
            if "bias" in variable.path:
                variable.assign(rng.normal(0, 1, variable.shape).astype("float32"))
        if "n_centers" not in params or smooth(head, features, labels, class_sizes, params):
            return head, features, labels, class_sizes, params
    raise AssertionError("no problem without a kink")


def smooth(head, features, labels, class_sizes, params):
    centers = head.points().astype("float64")
    return (
        reference_affinity.nearest_gap(features.astype("float64"), centers) > 1e-3
        and reference_heads.hinge_gap(features, centers, class_sizes, labels, params) > 1e-4
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", HEADS)
def test_the_loss_and_its_gradients_are_those_of_the_equation(name, seed):
    head, features, labels, class_sizes, params = problem(name, seed)
    weights = [to_numpy(variable).astype("float64") for variable in head.trainable_variables]
    whole = [features.astype("float64"), *weights]

    def loss(*parts):
        return reference_heads.LOSSES[name](labels, parts[0], list(parts[1:]), class_sizes, params)

    value, by_features, by_weights = value_and_gradients(head, features, labels)
    assert value == pytest.approx(loss(*whole), rel=2e-4, abs=1e-5)
    for place, found in enumerate([by_features, *by_weights]):
        expected = reference_affinity.numerical_gradient(
            lambda at, place=place: loss(*whole[:place], at, *whole[place + 1 :]), whole[place]
        )
        assert found == pytest.approx(expected, rel=2e-3, abs=2e-4 * (1 + np.abs(expected).max())), place


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", HEADS)
def test_weights_of_images_reach_all_of_the_loss(name, seed):
    """As deferred re-weighting gives them to the training step: the value, and what a step of rate 1 does."""
    head, features, labels, class_sizes, params = problem(name, seed)
    image_weights = np.random.default_rng(seed).uniform(0.1, 3, len(labels)).astype("float32")
    before = [to_numpy(variable).astype("float64") for variable in head.trainable_variables]

    def loss(*weights):
        return reference_heads.weighted_by_image(
            name, image_weights, labels, features.astype("float64"), list(weights), class_sizes, params
        )

    inputs = keras.Input(features.shape[1:])
    model = keras.Model(inputs, head(inputs))
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=head.loss, jit_compile=False)
    value = model.train_on_batch(features, labels, sample_weight=image_weights)
    assert float(value) == pytest.approx(loss(*before), rel=2e-4, abs=1e-5)
    for place, variable in enumerate(head.trainable_variables):
        expected = reference_affinity.numerical_gradient(
            lambda at, place=place: loss(*before[:place], at, *before[place + 1 :]), before[place]
        )
        tolerance = 2e-4 * (1 + np.abs(expected).max())
        assert before[place] - to_numpy(variable) == pytest.approx(expected, rel=2e-3, abs=tolerance), variable.path


LOGIT_HEADS = [name for name, declared in DECLARED.items() if declared.logits]


@pytest.mark.parametrize("size", [30.0, 1e4, 1e30])
@pytest.mark.parametrize("name", LOGIT_HEADS)
def test_nothing_overflows_with_extreme_logits(name, size):
    """As one-sided for the right class as against it."""
    head = made(name, (900, 0, 3), 3, PARAMS[name](np.random.default_rng(0)))
    features = np.float32(size * np.vstack([np.eye(3), -np.eye(3)]))
    head.kernel.assign(np.eye(3, dtype="float32"))
    value, by_features, by_weights = value_and_gradients(head, features, np.int32([0, 1, 2, 0, 1, 2]))
    assert math.isfinite(value)
    assert all(np.isfinite(each).all() for each in (by_features, *by_weights))


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 0.99, 1.0, 5.0])
@pytest.mark.parametrize("lead", [0.0, 15.0, 20.0, 90.0, 200.0])
def test_the_focal_loss_is_smooth_where_an_image_is_certain(gamma, lead):
    """q is 1 in float32 from a lead of about 17 on; a plain power's slope would be infinite there."""
    head = made("focal", (10, 10, 10), 3, {"gamma": gamma})
    head.kernel.assign(np.eye(3, dtype="float32"))
    features, labels = np.float32([[lead, 0, 0]]), np.int32([0])
    value, by_features, by_weights = value_and_gradients(head, features, labels)
    weights = [np.eye(3), np.zeros(3)]
    expected = reference_heads.focal(labels, features.astype("float64"), weights, (10, 10, 10), {"gamma": gamma})
    assert value == pytest.approx(expected, abs=1e-6)
    assert all(np.isfinite(each).all() for each in (by_features, *by_weights))


def test_cosines_of_features_that_are_all_zero_are_zero():
    head = made("ldam", (5, 5), 4, {"max_margin": 0.5, "scale": 30.0})
    value, by_features, by_weights = value_and_gradients(head, np.zeros((2, 4), "float32"), np.int32([0, 1]))
    assert math.isfinite(value)
    assert all(np.isfinite(each).all() for each in (by_features, *by_weights))
    assert not to_numpy(head(np.zeros((2, 4), "float32"))).any()


def test_known_corners_are_plain_cross_entropy():
    """What a parameter turns off is off, and τ = 1 adds the logarithms of the shares."""
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=(8, 3)).astype("float32"), rng.integers(0, 3, 8).astype("int32")
    sizes = (80, 15, 5)
    plain = to_numpy(made("softmax", sizes, 4, {}).loss(labels, scores))
    for name, params in (
        ("weighted", {"class_weight_power": 0.0}),
        ("class_balanced", {"one_minus_beta": 1.0}),
        ("focal", {"gamma": 0.0}),
        ("logit_adjusted", {"tau": 0.0}),
        ("ldam", {"max_margin": 0.0, "scale": 1.0}),
    ):
        assert to_numpy(made(name, sizes, 4, params).loss(labels, scores)) == pytest.approx(plain, rel=1e-5), name
    balanced = to_numpy(made("logit_adjusted", sizes, 4, {"tau": 1.0}).loss(labels, scores))
    assert balanced == pytest.approx(
        to_numpy(made("softmax", sizes, 4, {}).loss(labels, scores + np.log(np.float32(sizes) / 100))), rel=1e-5
    )


def test_inverse_frequency_weighs_all_classes_alike():
    weights = reference_heads.power_weights((80, 15, 5), 1.0)
    head = made("weighted", (80, 15, 5), 4, {"class_weight_power": 1.0})
    found = to_numpy(head.settings["class_weights"])
    assert found == pytest.approx(weights)
    assert found * [80, 15, 5] == pytest.approx([100 / 3] * 3)


@pytest.mark.parametrize("name", HEADS)
def test_heads_stay_float32_under_a_mixed_policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        head = made(name, (9, 4), 6, PARAMS[name](np.random.default_rng(0)))
    finally:
        keras.config.set_dtype_policy(before)
    features = ops.cast(np.random.default_rng(1).normal(size=(4, 6)), "bfloat16")
    assert keras.backend.standardize_dtype(head(features).dtype) == "float32"
    assert head.compute_dtype == "float32"
    assert {str(weight.dtype) for weight in head.weights} == {"float32"}
    assert keras.backend.standardize_dtype(head.loss(np.int32([0, 1, 0, 1]), head(features)).dtype) == "float32"


@pytest.mark.parametrize("name", HEADS)
def test_a_saved_model_comes_back_with_its_head(name, tmp_path):
    class_sizes, rng = (30, 4, 11), np.random.default_rng(3)
    inputs = keras.Input((5,))
    head = head_class(name).make(class_sizes, ROOM)
    model = keras.Model(inputs, head(keras.layers.Dense(4)(inputs)))
    head.begin(PARAMS[name](rng), seed=2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x, labels = rng.normal(size=(6, 5)).astype("float32"), np.int32([0, 1, 2, 0, 1, 2])
    scores = to_numpy(model(x))
    assert type(again.layers[-1]) is type(head)
    assert tuple(again.layers[-1].get_config()["class_sizes"]) == class_sizes
    assert (to_numpy(again(x)) == scores).all()
    assert (to_numpy(again.layers[-1].loss(labels, scores)) == to_numpy(head.loss(labels, scores))).all(), "settings"


@pytest.mark.parametrize("name", HEADS)
def test_other_parameters_are_refused(name):
    right = PARAMS[name](np.random.default_rng(0))
    head = made(name, (9, 4), 6, right)
    optional = {each.key for each in DECLARED[name].parameters if each.default is not None}
    with pytest.raises(ValueError, match="head takes"):
        head.begin(right | {"temperature": 1.0}, seed=0)
    for key in right:
        less = {other: value for other, value in right.items() if other != key}
        if key in optional:
            head.begin(less, seed=0)
            continue
        with pytest.raises(ValueError, match=f"head takes .*{key}"):
            head.begin(less, seed=0)


@pytest.mark.parametrize("name", HEADS)
def test_an_optional_parameter_has_its_declared_default(name):
    right = PARAMS[name](np.random.default_rng(0))
    for each in DECLARED[name].parameters:
        if each.default is None:
            continue
        left_out = made(name, (90, 4), 6, {key: value for key, value in right.items() if key != each.key})
        given = made(name, (90, 4), 6, right | {each.key: each.default})
        pairs = zip(left_out.variables, given.variables, strict=True)
        assert all((to_numpy(one) == to_numpy(other)).all() for one, other in pairs), each.key


IMPOSSIBLE = [
    ("class_balanced", {"one_minus_beta": 0.0}),
    ("class_balanced", {"one_minus_beta": 1.5}),
    ("class_balanced", {"one_minus_beta": math.nan}),
    ("weighted", {"class_weight_power": -1.0}),
    ("weighted", {"class_weight_power": math.nan}),
    ("focal", {"gamma": -0.5, "class_weight_power": 0.0}),
    ("focal", {"gamma": math.inf, "class_weight_power": 0.0}),
    ("logit_adjusted", {"tau": math.nan}),
    ("ldam", {"max_margin": -0.1, "scale": 30.0}),
    ("ldam", {"max_margin": 0.5, "scale": math.inf}),
    ("affinity", {"lambda": 0.5, "sigma": 1.0, "n_centers": 1, "margin_power": math.nan}),
    ("joint", {"lambda": 0.5, "sigma": 1.0, "n_centers": 1, "softmax_share": math.nan}),
    ("joint", {"lambda": 0.5, "sigma": 0.0, "n_centers": 1, "softmax_share": 1.0}),
]


@pytest.mark.parametrize(("name", "params"), IMPOSSIBLE)
def test_impossible_parameters_are_refused(name, params):
    head = made(name, (9, 4), 6, PARAMS[name](np.random.default_rng(0)))
    before = [to_numpy(variable).copy() for variable in head.variables]
    with pytest.raises(ValueError, match="is"):
        head.begin(params, seed=0)
    now = [to_numpy(variable) for variable in head.variables]
    assert all((a == b).all() for a, b in zip(before, now, strict=True)), "nothing has begun"


@pytest.mark.parametrize("name", HEADS)
def test_a_trial_leaves_nothing_to_the_next_one(name):
    """What the same parameters and seed begin with is the same, whatever came between."""
    rng = np.random.default_rng(5)
    first, other = PARAMS[name](rng), PARAMS[name](rng)
    head = made(name, (90, 4), 6, first, seed=7)
    before = [to_numpy(variable).copy() for variable in head.variables]
    head.begin(other, seed=8)
    changed = [to_numpy(variable).copy() for variable in head.variables]
    assert any((a != b).any() for a, b in zip(before, changed, strict=True))
    head.begin(first, seed=7)
    assert all((a == to_numpy(b)).all() for a, b in zip(before, head.variables, strict=True))
