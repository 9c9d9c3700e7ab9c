"""What a TPU will ask of the code, without one: two replicas, static shapes under XLA, the real resolver.

Only the hardware is replaced, by two logical CPU devices and a MirroredStrategy over them; nothing here ran on a TPU.
Each test needs a TensorFlow of its own, as devices are settled once per process.
"""

import json
import os
import subprocess
import sys

import pytest

from affinity_search.search import devices

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(devices.backend() != "tensorflow", reason="TPUStrategy is TensorFlow's"),
]

TRAINING = """
import json, sys
import numpy as np
from affinity_search.search import devices

def train(**changes):
    from affinity_search.search.training.data.splits import Split, search_splits
    from affinity_search.search.training.fit import Trainer, TrainingConfig
    from affinity_search.search.training.networks.building import NetworkConfig
    from affinity_search.studies.data import SOURCES
    train, evaluation = search_splits(SOURCES["digits"], 20, 0.2, "holdout", 0, None)
    half = train.take(np.arange(96))
    # Both halves of each batch are alike: then a replica's own batch statistics are those of the whole batch.
    order = np.concatenate([np.tile(part, 2) for part in np.split(np.arange(96), 3)])
    doubled = Split(half.images[order], half.labels[order])
    import affinity_search.search.training.fit as fit
    fit.epoch_order = lambda indices, labels, training, seed, epoch: (indices, labels)
    network = NetworkConfig((4, 8), 1, 0.9, "affinity")
    training = TrainingConfig(3, 64, 5e-3, **changes)
    trainer = Trainer(devices.current(), doubled, evaluation, SOURCES["digits"], network, training, max_centers=3)
    result = trainer.run({"lambda": 0.4, "sigma": 40.0, "n_centers": 2}, seed=1)
    told = [epoch.diagnostics for epoch in result.epochs]
    rows = zip(result.epochs, told, strict=True)
    print(json.dumps([[one.loss, one.scores.macro_f1, d.hinge, d.inside, sum(d.dead)] for one, d in rows]))
    return trainer
"""

TWO_REPLICAS = (
    TRAINING
    + """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
seen = {}
class FakeTpu(tf.distribute.MirroredStrategy):
    def __init__(self, resolver):
        assert isinstance(resolver, tf.distribute.cluster_resolver.TPUClusterResolver), resolver
        assert seen["initialised"] is resolver
        super().__init__(["CPU:0", "CPU:1"])
tf.tpu.experimental.initialize_tpu_system = lambda resolver: seen.update(initialised=resolver)
tf.distribute.TPUStrategy = FakeTpu
device = devices.configure("tpu")
assert device.replicas() == 2, device.replicas()
assert device.describe() == "tpu, 2 cores"
assert not device.compiles_with_xla(), "the strategy compiles"
trainer = train()
assert all(np.isfinite(np.asarray(value)).all() for value in trainer._variables().values()), "what a checkpoint takes"
kernel = trainer._model.get_layer("conv_0_0").kernel.value
assert [copy.device[-5:] for copy in kernel.values] == ["CPU:0", "CPU:1"], "a copy of the network on each"
"""
)

# As it is, under XLA, and under XLA with augmentation in bfloat16: one start of TensorFlow for the three.
ONE_DEVICE = (
    TRAINING
    + """
device = devices.configure("cpu", 1)
train()
device.compiles_with_xla = lambda: True
trainer = train()
# What XLA made of it; TensorFlow refuses to tell for a function that it does not compile. "<=" marks a dynamic size.
labels, weights = np.zeros(64, "int32"), np.ones(64, "float32")
evaluation = np.zeros(trainer._evaluation_batch, "int32")
for compiled, given in ((trainer._steps.step, (labels, labels, weights)), (trainer._outputs.forward, (evaluation,))):
    program = compiled.experimental_get_compiler_ir(*given)(stage="hlo", device_name="CPU:0")
    assert "f32[" in program and "<=" not in program, program[:2000]
train(augment=True, precision="mixed_bfloat16")
"""
)


def trained(code: str) -> list[list[list[float]]]:
    """(loss, macro F1, and of the diagnostics hinge, share inside the margin, dead centres) by training and epoch."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=250, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]


@pytest.fixture(scope="module")
def one_device() -> list[list[list[float]]]:
    return trained(ONE_DEVICE)


def test_two_replicas_give_what_one_device_gives(one_device: list[list[list[float]]]) -> None:
    """Through the real resolver, the strategy's scope and Keras' distributed fit and predict."""
    plain, _, _ = one_device
    (both,) = trained(TWO_REPLICAS)
    for replicated, alone in zip(both, plain, strict=True):
        assert replicated == pytest.approx(alone, rel=1e-4, abs=1e-5)


def test_every_function_compiles_under_xla_with_static_shapes(one_device: list[list[list[float]]]) -> None:
    plain, under_xla, _ = one_device
    for compiled, alone in zip(under_xla, plain, strict=True):
        assert compiled == pytest.approx(alone, rel=3e-3, abs=1e-3)


def test_so_do_augmentation_and_bfloat16(one_device: list[list[list[float]]]) -> None:
    _, _, in_bfloat16 = one_device
    losses = [epoch[0] for epoch in in_bfloat16]
    assert losses[-1] < losses[0]
