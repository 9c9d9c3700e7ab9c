import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from affinity_search.search import devices

devices.configure("cpu", 2)

import keras  # the device comes first
from keras import ops

from affinity_search.search.training.heads.affinity import (
    AffinityHead,
    AffinityLoss,
    affinity,
    diversity,
    hinge_loss,
    initial_centers,
    squared_distances,
)
from tests import reference_affinity as reference

to_numpy = ops.convert_to_numpy


def value_and_gradients(features, centers, used, labels, margin, sigma):
    """Eq. (7) with its gradients for features and centres, on whichever backend runs."""

    def loss(f, w):
        return hinge_loss(labels, affinity(f, w, used, sigma), margin) + diversity(w, used)

    features, centers = np.float32(features), np.float32(centers)
    if keras.backend.backend() == "jax":
        import jax

        value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(features, centers)
    else:
        import tensorflow as tf

        f, w = tf.constant(features), tf.constant(centers)
        with tf.GradientTape() as tape:
            tape.watch([f, w])
            value = loss(f, w)
        gradients = tape.gradient(value, [f, w])
    return float(value), *(to_numpy(gradient) for gradient in gradients)


def pad(centers, room):
    n_classes, m, h = centers.shape
    padded = np.zeros((n_classes, room, h), "float32")
    padded[:, :m] = centers
    return padded, (np.arange(room) < m).astype("float32")


@st.composite
def problems(draw):
    n, n_classes = draw(st.integers(1, 6)), draw(st.integers(2, 5))
    m, h = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.3, 1.0, 3.0]))
    return {
        "features": rng.normal(0, scale, (n, h)).astype("float32"),
        "centers": rng.normal(0, scale, (n_classes, m, h)).astype("float32"),
        "labels": rng.integers(0, n_classes, n),
        "margin": draw(st.floats(0.01, 1.0)),
        "sigma": draw(st.floats(1.0, 200.0)),
        "room": m + draw(st.integers(0, 3)),
    }


def rounding(problem):
    """The matrix form's error in the exponent, as documented, for the largest norms at hand."""
    norms = [(problem[name] ** 2).sum(-1).max() for name in ("features", "centers")]
    return float(1e-6 + 4e-7 * sum(norms) / problem["sigma"])


@settings(max_examples=60, deadline=None)
@given(problems())
def test_values_equal_the_loop_version(problem):
    centers, used = pad(problem["centers"], problem["room"])
    d = to_numpy(affinity(problem["features"], centers, used, problem["sigma"]))
    expected = reference.affinity(problem["features"], problem["centers"], problem["sigma"])
    assert d == pytest.approx(expected, abs=rounding(problem))
    assert float(hinge_loss(problem["labels"], expected.astype("float32"), problem["margin"])) == pytest.approx(
        reference.hinge_loss(problem["labels"], expected, problem["margin"]), abs=1e-5
    )
    assert float(diversity(centers, used)) == pytest.approx(reference.diversity(problem["centers"]), rel=1e-4, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(problems())
def test_gradients_equal_numerical_differences(problem):
    f, w = problem["features"].astype("float64"), problem["centers"].astype("float64")
    labels, margin, sigma = problem["labels"], problem["margin"], problem["sigma"]
    assume(reference.nearest_gap(f, w) > 1e-3)
    assume(reference.hinge_gap(labels, reference.affinity(f, w, sigma), margin) > 1e-4)
    centers, used = pad(problem["centers"], problem["room"])
    value, by_features, by_centers = value_and_gradients(f, centers, used, labels, margin, sigma)
    expected_f = reference.numerical_gradient(lambda at: reference.total_loss(labels, at, w, margin, sigma), f)
    expected_w = reference.numerical_gradient(lambda at: reference.total_loss(labels, f, at, margin, sigma), w)
    size = 1 + np.abs(expected_w).max()
    assert value == pytest.approx(reference.total_loss(labels, f, w, margin, sigma), rel=1e-4, abs=1e-4)
    assert by_features == pytest.approx(expected_f, rel=1e-3, abs=1e-4)
    assert by_centers[:, : w.shape[1]] == pytest.approx(expected_w, rel=1e-3, abs=1e-4 * size)
    assert not by_centers[:, w.shape[1] :].any(), "padding gets no gradient"


@pytest.mark.parametrize(
    ("margin", "wrong", "right", "expected"),
    [
        *[(0.01, 1, 1, 0.01), (0.01, 1, 0.75, 0.26), (0.01, 1, 0, 1.01), (0.01, 0.75, 1, 0.0)],
        *[(0.75, 1, 1, 0.75), (0.75, 1, 0, 1.75), (0.75, 0.5, 0.25, 1.0), (0.75, 0.25, 1, 0.0)],
        *[(0.75, 0, 0.5, 0.25), (0.75, 0, 0, 0.75)],
    ],
)
def test_hand_values(margin, wrong, right, expected):
    assert float(hinge_loss([1], np.float32([[wrong, right]]), margin)) == pytest.approx(expected, abs=1e-6)


def test_hinge_is_the_mean_over_the_batch_and_the_sum_over_wrong_classes():
    d = np.float32([[1, 1, 1], [0, 0, 1]])
    assert float(hinge_loss([0, 2], d, 0.5)) == pytest.approx((0.5 + 0.5 + 0) / 2)


def test_diversity_by_hand():
    """Centres 0, 1 and 3 on a line: squared distances 1, 9, 4, mean 14/3, variance 98/9."""
    centers = np.float32([[[0.0]], [[1.0]], [[3.0]]])
    assert float(diversity(centers, np.float32([1]))) == pytest.approx(98 / 9, rel=1e-5)


def test_large_offsets_never_give_negative_distances_or_affinities_above_one():
    points = np.float32(1000 + np.random.default_rng(0).normal(0, 1e-4, (20, 8)))
    assert float(ops.min(squared_distances(points, points))) >= 0
    assert float(ops.max(affinity(points, points[:, None], np.float32([1]), 0.1))) <= 1


EDGES = {
    "one centre, two classes": ({}, 2, 1),
    "tiny sigma": ({"sigma": 1e-6}, 3, 2),
    "vanishing sigma": ({"sigma": 1e-38}, 3, 2),
    "huge sigma": ({"sigma": 1e12}, 3, 2),
    "coinciding centres": ({"centers": np.zeros((3, 2, 4))}, 3, 2),
    "features on the centres": ({"centers": np.ones((3, 2, 4)), "features": np.ones((5, 4))}, 3, 2),
    "a single centre in all": ({"labels": [0] * 5}, 1, 1),
    "an absent class": ({"labels": [0] * 5}, 3, 2),
    "far features": ({"features": np.full((5, 4), 1e6)}, 3, 2),
}


@pytest.mark.parametrize("edge", EDGES)
def test_finite_at_the_edges(edge):
    changes, n_classes, m = EDGES[edge]
    rng = np.random.default_rng(0)
    problem = {
        "features": rng.normal(size=(5, 4)),
        "centers": rng.normal(size=(n_classes, m, 4)),
        "labels": np.arange(5) % n_classes,
        "sigma": 10.0,
        **changes,
    }
    centers, used = pad(problem["centers"], m + 1)
    args = (problem["features"], centers, used, problem["labels"], 0.75, np.float32(problem["sigma"]))
    assert all(np.isfinite(part).all() for part in value_and_gradients(*args))


def test_diversity_pushes_an_absent_class_centre_but_the_hinge_only_by_affinity():
    """A class no sample has still gets the gradients of the wrong-class terms."""
    features, centers = np.zeros((2, 2)), np.float32([[[0.0, 0.1]], [[0.2, 0.0]], [[0.3, 0.3]]])
    _, _, by_centers = value_and_gradients(features, centers, np.float32([1]), [0, 1], 0.5, 1.0)
    assert np.abs(by_centers[2]).max() > 1e-3


def head_with(room, m, seed=3, n_classes=10, width=16):
    head = AffinityHead(n_classes, room)
    head.build((None, width))
    head.begin({"lambda": 0.5, "sigma": 20.0, "n_centers": m}, seed)
    return head


@pytest.mark.parametrize("m", [1, 3])
def test_a_padded_head_equals_an_unpadded_one(m):
    padded, plain = head_with(7, m), head_with(m, m)
    features, labels = np.random.default_rng(1).normal(size=(12, 16)), np.arange(12) % 10
    assert to_numpy(padded.centers)[:, :m] == pytest.approx(to_numpy(plain.centers), abs=0)
    assert not to_numpy(padded.centers)[:, m:].any()
    assert to_numpy(padded(features)) == pytest.approx(to_numpy(plain(features)), abs=1e-6)
    assert float(padded.losses[0]) == pytest.approx(float(plain.losses[0]), rel=1e-5)
    a = value_and_gradients(features, to_numpy(padded.centers), to_numpy(padded.used), labels, 0.5, 20.0)
    b = value_and_gradients(features, to_numpy(plain.centers), to_numpy(plain.used), labels, 0.5, 20.0)
    assert a[0] == pytest.approx(b[0], rel=1e-5)
    assert a[1] == pytest.approx(b[1], abs=1e-6)
    assert a[2][:, :m] == pytest.approx(b[2], abs=1e-5)
    assert not a[2][:, m:].any()


@pytest.mark.parametrize(("m", "expected"), [(1, 0.447), (10, 0.141)])
def test_initial_centres_have_the_documented_spread(m, expected):
    drawn = to_numpy(initial_centers(10, m, 12, 4000, seed=0))[:, :m]
    assert drawn.std() == pytest.approx(expected, rel=0.02)
    assert np.abs(drawn).max() < 2.3 * expected, "truncated at two standard deviations of the underlying normal"


def test_initial_centres_follow_the_seed():
    first, again, other = (to_numpy(head_with(4, 2, seed=seed).centers) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other)[:, :2].all()


def test_the_head_stays_float32_under_a_bfloat16_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        head = head_with(2, 2)
    finally:
        keras.config.set_dtype_policy(before)
    features = ops.cast(np.random.default_rng(1).normal(size=(4, 16)), "bfloat16")
    assert keras.backend.standardize_dtype(head(features).dtype) == "float32"
    assert head.compute_dtype == "float32"
    assert {str(weight.dtype) for weight in head.weights} == {"float32"}


@pytest.mark.parametrize("bad", [(0.5, 10.0, 0), (0.5, 10.0, 5), (0.5, 0.0, 1), (0.5, float("nan"), 1), (0.0, 10.0, 1)])
def test_impossible_parameters_are_refused(bad):
    with pytest.raises(ValueError, match="is"):
        head_with(4, 1).begin(dict(zip(("lambda", "sigma", "n_centers"), bad, strict=True)), seed=0)


@pytest.mark.parametrize(
    "bad", [{}, {"lambda": 0.5, "sigma": 1.0}, {"lambda": 0.5, "sigma": 1.0, "n_centers": 1, "p": 1}]
)
def test_other_parameters_are_refused(bad):
    with pytest.raises(ValueError, match="the head takes lambda, sigma, n_centers, and was given "):
        head_with(4, 1).begin(bad, seed=0)


class TestInAnyModel:
    """As in a program that knows nothing of studies."""

    def model(self, **settings):
        inputs = keras.Input((6,))
        features = keras.layers.BatchNormalization()(keras.layers.Dense(8, activation="relu")(inputs))
        model = keras.Model(inputs, AffinityHead(3, n_centers=2, sigma=20.0, **settings)(features))
        model.compile(optimizer=keras.optimizers.Adam(0.01), loss=AffinityLoss(margin=0.4))
        return model

    def blobs(self):
        rng = np.random.default_rng(0)
        labels = np.arange(120) % 3
        return rng.normal(3.0 * np.eye(3, 6)[labels], 1.0).astype("float32"), labels

    def test_it_learns_by_fit(self):
        keras.utils.set_random_seed(1)
        images, labels = self.blobs()
        model = self.model()
        losses = model.fit(images, labels, batch_size=40, epochs=30, verbose=0).history["loss"]
        assert losses[-1] < losses[0]
        assert np.mean(np.argmax(model.predict(images, verbose=0), axis=1) == labels) > 0.9, "chance is 0.33"

    def test_a_saved_model_loads_and_predicts_the_same(self, tmp_path):
        images, labels = self.blobs()
        model = self.model()
        model.fit(images, labels, epochs=1, verbose=0)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert again.loss.margin == 0.4
        assert float(again.layers[-1].sigma) == 20.0
        np.testing.assert_array_equal(again.predict(images, verbose=0), model.predict(images, verbose=0))
        again.fit(images, labels, epochs=1, verbose=0)  # it goes on

    def test_labels_may_be_a_column_as_keras_sets_have_them(self):
        images, labels = self.blobs()
        model = self.model()
        flat, column = (model.evaluate(images, given, verbose=0) for given in (labels, labels[:, None]))
        assert flat == column

    @pytest.mark.parametrize(
        ("wrong", "message"), [({"margin": 0.0}, "lambda 0.0"), ({"margin": float("nan")}, "must be above 0")]
    )
    def test_impossible_settings_are_refused(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            self.model(**wrong)
