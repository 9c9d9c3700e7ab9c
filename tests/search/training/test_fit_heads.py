"""Every head in training: compiled once, resumed bit for bit, on two replicas and under XLA as on one device."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from affinity_search.search import devices
from affinity_search.studies.data import SOURCES

DEVICE = devices.configure("cpu", 2)

from keras import ops  # the device comes first

from affinity_search.search.training import checkpoints
from affinity_search.search.training.data import splits as datasets
from affinity_search.search.training.data.splits import search_splits
from affinity_search.search.training.errors import DivergedError
from affinity_search.search.training.fit import ADJUSTMENTS, Trainer, TrainingConfig, TrainingResult
from affinity_search.search.training.heads import HEADS
from affinity_search.search.training.heads.class_sizes import log_shares
from affinity_search.search.training.networks import building
from affinity_search.search.training.networks.building import NetworkConfig, trainable_state

DIGITS = SOURCES["digits"]
PLAIN = TrainingConfig(epochs=2, batch=32, learning_rate=5e-3)

# Two trials of each head. Both have a rate and a decay of their own.
AFFINITY = (
    {"lambda": 0.3, "sigma": 40.0, "n_centers": 2, "margin_power": 0.4},
    {"lambda": 0.7, "sigma": 10.0, "n_centers": 1},
)
TRIALS = {
    "affinity": AFFINITY,
    "joint": (AFFINITY[0] | {"softmax_share": 0.5}, AFFINITY[1] | {"softmax_share": 2.0}),
    "softmax": ({}, {}),
    "weighted": ({"class_weight_power": 1.0}, {"class_weight_power": 0.3}),
    "class_balanced": ({"one_minus_beta": 1e-2}, {"one_minus_beta": 1e-4}),
    "focal": ({"gamma": 0.5, "class_weight_power": 0.5}, {"gamma": 3.0}),
    "logit_adjusted": ({"tau": 1.0}, {"tau": 0.2}),
    "ldam": ({"max_margin": 0.5, "scale": 20.0}, {"max_margin": 0.1, "scale": 8.0}),
}
# Each setting with some head: a checkpoint must know of it.
TRAINING = {
    "affinity": {"sampling": "balanced", "reweight_from": 0.5},
    "joint": {"optimizer": "sgd", "augment": True},
    "softmax": {"adjust": True, "reweight_from": 0.5},
    "weighted": {"schedule": "cosine", "warmup": 0.34},
    "class_balanced": {"adjust": True, "sampling": "square_root"},
    "focal": {"optimizer": "sgd", "precision": "mixed_float16"},
    "logit_adjusted": {"drops": (0.5,), "drop_by": 10.0},
    "ldam": {"reweight_from": 0.6, "adjust": True, "augment": True},
}


def first(head):
    return TRIALS[head][0] | {"learning_rate": 0.01, "weight_decay": 0.05}


def second(head):
    return TRIALS[head][1] | {"learning_rate": 0.002, "weight_decay": 0.3}


@pytest.fixture(scope="module")
def splits():
    train, evaluation = search_splits(DIGITS, 20, 0.2, "holdout", 0, None)
    return train.take(np.arange(70)), evaluation.take(np.arange(40)), datasets.test_split(DIGITS, 20, None)


def trainer(splits, head, training):
    train, evaluation, test = splits
    return Trainer(DEVICE, train, evaluation, DIGITS, NetworkConfig((4,), 1, 0.9, head), training, 2, test)


@pytest.fixture(scope="module")
def of_head(splits):
    """One trainer for each head, with the settings of `TRAINING`; and how often its network was traced."""
    made, traced = {}, {}
    scaled = building.Scale.call

    def get(head):
        if head not in made:
            made[head] = trainer(splits, head, replace(PLAIN, epochs=3, decays=True, **TRAINING[head]))
        return made[head], traced.setdefault(head, [])

    def call(self, images):
        for calls in traced.values():
            calls.append(1)
        return scaled(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building.Scale, "call", call)
        yield get


def outcome(result):
    """All but the durations."""
    return [(epoch.loss, epoch.scores, epoch.adjustment) for epoch in result.epochs]


@pytest.fixture(scope="module")
def compiled():
    """Every compilation of JAX; empty on TensorFlow."""
    events = []
    if devices.backend() == "jax":
        import jax

        jax.monitoring.register_event_duration_secs_listener(
            lambda event, seconds, **about: events.append(event) if "backend_compile" in event else None
        )
    return events


@pytest.mark.parametrize("head", HEADS)
def test_other_parameters_trace_and_compile_nothing(head, of_head, compiled):
    subject, traced = of_head(head)
    before = outcome(subject.run(first(head), seed=1))
    assert traced
    counted = len(traced), len(compiled)
    other = outcome(subject.run(second(head), seed=1))
    subject.run(TRIALS[head][1], seed=2)
    assert (len(traced), len(compiled)) == counted
    assert other != before, "the parameters matter"
    assert outcome(subject.run(first(head), seed=1)) == before, "bit for bit"


@pytest.mark.parametrize("head", HEADS)
def test_a_resumed_run_ends_as_an_undisturbed_one_bit_for_bit(head, of_head, tmp_path):
    subject, _ = of_head(head)
    kept = [subject.state() for _ in subject.epochs(first(head), seed=1)]
    whole = TrainingResult(kept[-1].epochs)
    weights = [ops.convert_to_numpy(variable).copy() for variable in trainable_state(subject._model)]
    for epochs in (1, 2):
        checkpoints.save(tmp_path / "1.npz", kept[epochs - 1], {})
        subject.run(second(head), seed=9)
        resumed = subject.run(first(head), 1, resume=checkpoints.load(tmp_path / "1.npz", {}))
        assert outcome(resumed) == outcome(whole)
        for variable, expected in zip(trainable_state(subject._model), weights, strict=True):
            assert (ops.convert_to_numpy(variable) == expected).all(), variable.path


@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_reaches_the_training(head, of_head):
    """Each changed alone changes the outcome."""
    subject, _ = of_head(head)
    changes = {"learning_rate": 0.02, "weight_decay": 0.9, "lambda": 0.6, "sigma": 11.0, "n_centers": 1}
    changes |= {"softmax_share": 9.0, "margin_power": 0.0, "class_weight_power": 1.9, "one_minus_beta": 0.5}
    changes |= {"gamma": 2.0, "tau": 2.0, "max_margin": 0.9, "scale": 3.0}
    before = outcome(subject.run(first(head), seed=1))
    for key in first(head):
        assert outcome(subject.run(first(head) | {key: changes[key]}, seed=1)) != before, key


@pytest.mark.parametrize(
    "changed",
    [
        {"optimizer": "sgd"},
        {"schedule": "cosine"},
        {"warmup": 0.5},
        {"sampling": "balanced"},
        {"reweight_from": 0.5},
    ],
    ids=str,
)
def test_every_setting_reaches_the_training(splits, changed, of_head):
    subject, _ = of_head("softmax")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "_training", replace(PLAIN, epochs=4, decays=True))
        before = [epoch.loss for epoch in subject.run({}, seed=1).epochs]
        if "optimizer" in changed:
            other = trainer(splits, "softmax", replace(PLAIN, epochs=4, **changed))
            assert [epoch.loss for epoch in other.run({}, seed=1).epochs] != before
            return
        patch.setattr(subject, "_training", replace(PLAIN, epochs=4, decays=True, **changed))
        after = [epoch.loss for epoch in subject.run({}, seed=1).epochs]
    assert after != before
    if changed == {"reweight_from": 0.5}:
        assert after[:2] == before[:2], "deferred: the first half is as ever"


def test_the_adjustment_is_the_best_on_the_evaluation_images_and_used_on_the_test_set(of_head):
    subject, _ = of_head("softmax")
    last = subject.run(first("softmax"), seed=1).epochs[-1]
    indices, labels = subject._evaluation
    outputs = subject._outputs_for(indices)
    shares = log_shares(subject._class_sizes)

    def f1_at(tau):
        return subject._score(labels, outputs - tau * shares, None).macro_f1

    by_tau = {tau: f1_at(tau) for tau in ADJUSTMENTS}
    assert (ADJUSTMENTS[0], ADJUSTMENTS[-1]) == (0.0, 2.0)
    assert last.scores.macro_f1 == max(by_tau.values())
    assert last.adjustment == min(tau for tau, f1 in by_tau.items() if f1 == max(by_tau.values()))
    test_indices, test_labels = subject._test[0]
    for tau in (0.0, 1.7):
        subject._done[-1] = replace(last, adjustment=tau)
        predicted = (subject._outputs_for(test_indices) - tau * shares).argmax(axis=1)
        expected = np.zeros((10, 10), int)
        np.add.at(expected, (test_labels, predicted), 1)
        assert (np.array(subject.score_test()[0].confusion) == expected).all()


def test_only_logits_are_adjusted(splits):
    with pytest.raises(ValueError, match="the affinity head gives no logits"):
        trainer(splits, "affinity", replace(PLAIN, adjust=True))


def test_a_decay_without_room_for_it_is_refused(splits):
    with pytest.raises(ValueError, match=r"weight_decay is 0\.1; this trainer was built for runs without"):
        trainer(splits, "softmax", PLAIN).run({"weight_decay": 0.1}, seed=1)


def test_a_diverging_run_with_an_adjustment_ends_at_once(splits):
    subject = trainer(splits, "softmax", replace(PLAIN, adjust=True, epochs=5))
    with pytest.raises(DivergedError):
        subject.run({"learning_rate": 1e38}, seed=1)


ON_DEVICE = """
import json, sys
import numpy as np
from affinity_search.search import devices
{device}
from affinity_search.search.training import fit
from affinity_search.search.training.data.splits import search_splits
from affinity_search.search.training.networks.building import NetworkConfig
from affinity_search.search.training.networks.normalization import BatchNorm
from affinity_search.studies.data import SOURCES
train, evaluation = search_splits(SOURCES["digits"], 20, 0.2, "holdout", 0, None)
# In training, too, by the moving statistics, which so stay as they begin: see the test.
normalise = BatchNorm.call
BatchNorm.call = lambda self, inputs, training=False, mask=None: normalise(self, inputs, training=False, mask=mask)
for head, params in json.loads(sys.argv[1]).items():
    training = fit.TrainingConfig(2, 32, 5e-3, decays=True, reweight_from=0.5)
    network = NetworkConfig((4,), 1, 0.9, head)
    trainer = fit.Trainer(device, train.take(np.arange(192)), evaluation, SOURCES["digits"], network, training, 2)
    result = trainer.run(params, seed=1)
    print(json.dumps([head, [[one.loss, one.scores.macro_f1] for one in result.epochs]]))
"""
ONE = 'device = devices.configure("cpu", 1)'
XLA = f"{ONE}\ndevice.compiles_with_xla = lambda: True"
REPLICAS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
class FakeTpu(tf.distribute.MirroredStrategy):
    def __init__(self, resolver):
        super().__init__(["CPU:0", "CPU:1"])
tf.tpu.experimental.initialize_tpu_system = lambda resolver: None
tf.distribute.TPUStrategy = FakeTpu
device = devices.configure("tpu")
assert device.replicas() == 2
"""


def on_device(device):
    """(loss, macro F1) by epoch of each head, in a process of its own: devices are settled once."""
    trials = json.dumps({head: first(head) for head in HEADS})
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    code = ON_DEVICE.replace("{device}", device)
    done = subprocess.run(
        [sys.executable, "-c", code, trials], capture_output=True, text=True, check=False, timeout=280, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))


@pytest.mark.long
@pytest.mark.skipif(devices.backend() != "tensorflow", reason="TPUStrategy is TensorFlow's")
def test_two_replicas_and_xla_give_what_one_device_gives():
    """Each head's loss and scores over two epochs, the second one with deferred weights; each replica has other images.

    But for the batch norm: a replica normalises its own part of a batch by the part's own mean and variance, so a
    network with one trains otherwise on two replicas than on one device, whichever head it has. Here it normalises by
    constants. With a batch norm, on parts that are alike: test_tpu_readiness.py.
    """
    alone, replicated, under_xla = (on_device(device) for device in (ONE, REPLICAS, XLA))
    assert alone.keys() == replicated.keys() == under_xla.keys() == HEADS.keys()
    for head, expected in alone.items():
        assert np.array(under_xla[head]) == pytest.approx(np.array(expected), rel=1e-3, abs=1e-3), head
        assert np.array(replicated[head]) == pytest.approx(np.array(expected), rel=1e-5), head
