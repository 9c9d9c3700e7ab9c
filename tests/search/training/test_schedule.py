"""What each epoch sees, and what the optimiser does with it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from affinity_search.search import devices

devices.configure("cpu", 2)

import keras  # the device comes first
from keras import ops

from affinity_search.search.training.networks.normalization import BatchNorm
from affinity_search.search.training.results import TrainingConfig
from affinity_search.search.training.schedule import (
    MOMENTUM,
    class_weights,
    epoch_order,
    learning_rate,
    make_optimizer,
    reset_optimizer,
    set_weight_decay,
    whole_batches,
)

to_numpy = ops.convert_to_numpy
PLAIN = TrainingConfig(epochs=10, batch=8)


def rates(training, rate=1.0):
    return [learning_rate(training, epoch, rate) for epoch in range(training.epochs)]


def test_drops_divide_by_what_they_are_told():
    training = replace(PLAIN, drops=(0.5, 0.8), drop_by=10.0)
    assert rates(training, 2.0) == pytest.approx([2.0] * 5 + [0.2] * 3 + [0.02] * 2)
    assert rates(replace(training, epochs=100, drops=(0.55,)))[54:56] == pytest.approx([1.0, 0.1]), "0.55 · 100 > 55"


def test_a_cosine_falls_from_the_rate_towards_zero():
    found = rates(replace(PLAIN, schedule="cosine"), 3.0)
    assert found == pytest.approx([1.5 * (1 + math.cos(math.pi * epoch / 10)) for epoch in range(10)])
    assert found[0] == 3.0
    assert sorted(found, reverse=True) == found
    assert found[-1] > 0
    assert rates(replace(PLAIN, schedule="cosine", drops=(0.1,))) == rates(replace(PLAIN, schedule="cosine"))


@pytest.mark.parametrize("schedule", ["drops", "cosine"])
def test_the_rate_warms_up_in_equal_steps(schedule):
    found = rates(replace(PLAIN, schedule=schedule, warmup=0.3))
    assert found[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert found[3] == 1, "the whole rate, before it falls"
    assert rates(replace(PLAIN, schedule=schedule, warmup=0.0))[0] == 1
    assert rates(replace(PLAIN, schedule=schedule, epochs=1, warmup=0.5)) == [1.0]
    assert rates(replace(PLAIN, schedule=schedule, epochs=100, warmup=0.07))[6:8] == [1.0, 1.0], "0.07 · 100 > 7"


SIZES = (900, 90, 10)
LABELS = np.repeat(np.arange(3, dtype=np.int32), SIZES)
INDICES = np.arange(5000, 6000, dtype=np.int32)


@pytest.mark.parametrize(
    ("sampling", "shares"),
    [("balanced", (1 / 3, 1 / 3, 1 / 3)), ("square_root", tuple(np.sqrt(SIZES) / np.sqrt(SIZES).sum()))],
)
def test_sampling_draws_classes_as_it_says(sampling, shares):
    training = replace(PLAIN, sampling=sampling)
    counts = np.zeros(3)
    for epoch in range(20):
        indices, labels = epoch_order(INDICES, LABELS, training, seed=1, epoch=epoch)
        assert (LABELS[indices - 5000] == labels).all(), "labels follow their images"
        counts += np.bincount(labels, minlength=3)
    assert counts / counts.sum() == pytest.approx(shares, abs=5 * math.sqrt(0.25 / counts.sum()))


def test_within_a_class_all_images_are_drawn_alike():
    training = replace(PLAIN, sampling="balanced")
    drawn = np.concatenate([epoch_order(INDICES, LABELS, training, 1, epoch)[0] for epoch in range(30)])
    counts = np.bincount(drawn - 5000, minlength=1000)[990:]
    assert counts.sum() / 10 == pytest.approx(1000, rel=0.05)
    assert counts == pytest.approx(np.full(10, counts.mean()), rel=0.15)


@pytest.mark.parametrize("sampling", ["natural", "balanced", "square_root"])
def test_every_sampling_has_the_same_number_of_steps_and_repeats(sampling):
    training = replace(PLAIN, batch=64, sampling=sampling)

    def order(seed, epoch):
        return epoch_order(INDICES, LABELS, training, seed, epoch)[0].tolist()

    assert len(order(1, 0)) == whole_batches(1000, 64) == 1024
    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(*key)) for key in [(1, 0), (1, 1), (2, 0), (0, 1)]}) == 4


def test_sampling_does_without_a_class_that_has_no_images():
    labels = np.repeat(np.int32([0, 2]), [60, 4])
    _, drawn = epoch_order(np.arange(64, dtype=np.int32), labels, replace(PLAIN, sampling="balanced"), 1, 0)
    assert set(drawn) == {0, 2}


def test_deferred_weights_begin_at_their_epoch_and_have_mean_one():
    training = replace(PLAIN, epochs=100, reweight_from=0.55)
    before, after = (class_weights(SIZES, training, epoch) for epoch in (54, 55))
    assert (before == 1).all()
    beta = 0.9999
    effective = [1 / sum(beta**k for k in range(n)) for n in SIZES]
    mean = sum(n * w for n, w in zip(SIZES, effective, strict=True)) / sum(SIZES)
    assert after == pytest.approx([w / mean for w in effective], rel=1e-5)
    assert (after * SIZES).sum() / sum(SIZES) == pytest.approx(1, rel=1e-6)
    assert (class_weights(SIZES, training, 99) == after).all()
    assert (class_weights(SIZES, replace(training, reweight_from=0.0), 0) == after).all()
    assert (class_weights(SIZES, PLAIN, 9) == 1).all()
    assert str(after.dtype) == "float32"


def network():
    """A convolution, a batch norm, and the affinity head's centres, with their values."""
    from affinity_search.search.training.heads.affinity import AffinityHead

    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(2, 3, bias_initializer="ones", name="conv")(inputs)
    x = BatchNorm(momentum=0.9, name="norm")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, AffinityHead(3, 2, name="head")(x))


def stepped(model, training, decay, gradients, rate=0.1):
    """The variables before and after these steps."""
    optimizer = make_optimizer(training, model.trainable_variables)
    set_weight_decay(optimizer, decay)
    optimizer.learning_rate = rate
    before = {variable.path: to_numpy(variable).copy() for variable in model.trainable_variables}
    for gradient in gradients:
        parts = [ops.convert_to_tensor(np.full(v.shape, gradient, "float32")) for v in model.trainable_variables]
        optimizer.apply(parts)
    return before, {variable.path: to_numpy(variable).copy() for variable in model.trainable_variables}


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weight_decay_shrinks_kernels_by_rate_times_decay_and_nothing_else(optimizer):
    """Decoupled: with no gradient at all, and no moment of it in Adam."""
    training = replace(PLAIN, optimizer=optimizer, decays=True)
    before, after = stepped(network(), training, 0.5, [0.0, 0.0])
    kernels = [path for path in before if path.endswith("kernel")]
    assert len(kernels) == 1 < len(before)
    for path, value in before.items():
        shrunk = (1 - 0.1 * 0.5) ** 2 if path in kernels else 1.0
        assert after[path] == pytest.approx(value * shrunk, rel=1e-5), path
        assert np.abs(value).max() > 0 or "beta" in path


def test_no_decay_is_no_decay():
    one, other = network(), network()
    other.set_weights(one.get_weights())
    _, without = stepped(one, PLAIN, 0.0, [0.3, -0.1])
    _, zero = stepped(other, replace(PLAIN, decays=True), 0.0, [0.3, -0.1])
    assert all((a == b).all() for a, b in zip(without.values(), zero.values(), strict=True))


def test_sgd_is_momentum_and_decay_written_out():
    """Loshchilov and Hutter 2019, algorithm 1: the weights decay beside the step of momentum."""
    gradients, rate, decay = [0.3, -0.2, 0.5], 0.1, 0.2
    before, after = stepped(network(), replace(PLAIN, optimizer="sgd", decays=True), decay, gradients, rate)
    for path, value in before.items():
        weights, velocity = value.astype("float64"), 0.0
        for gradient in gradients:
            if path.endswith("kernel"):
                weights = weights - rate * decay * weights
            velocity = MOMENTUM * velocity - rate * gradient
            weights = weights + velocity
        assert after[path] == pytest.approx(weights, rel=1e-5, abs=1e-6), path


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_the_decay_is_part_of_the_optimiser_s_variables_and_reset_with_them(precision):
    """A checkpoint holds it, and a run without decay after one with decay has none."""
    model = network()
    optimizer = make_optimizer(replace(PLAIN, decays=True, precision=precision), model.trainable_variables)
    set_weight_decay(optimizer, 0.25)
    (decay,) = [variable for variable in optimizer.variables if "weight_decay" in variable.path]
    assert float(to_numpy(decay)) == 0.25
    reset_optimizer(optimizer)
    assert float(to_numpy(decay)) == 0.0


@pytest.mark.parametrize(
    "bad", [{"optimizer": "lion"}, {"schedule": "linear"}, {"sampling": "all"}, {"precision": "float8"}]
)
def test_unknown_names_are_refused_with_the_known_ones(bad):
    (key,) = bad
    with pytest.raises(ValueError, match=f"{key} is '{bad[key]}'; use "):
        replace(PLAIN, **bad)
