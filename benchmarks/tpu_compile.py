"""`make tpu-compile`: compile the training steps and the predictions for TPUs that are not here, by TPU's own compiler.

libtpu (it comes with `jax[tpu]`) compiles for a described topology without such a machine. Nothing is run: the figures
are the compiler's. JAX alone can do this; TensorFlow's TPUStrategy needs a TPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax", "TPU_SKIP_MDS_QUERY": "1"}
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")  # or libtpu asks for it
os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # there is no TPU that another process could have

import numpy as np

from affinity_search.search import devices
from affinity_search.search.training.data.splits import Split
from affinity_search.studies.data import SOURCES
from affinity_search.studies.heads import HEADS

TOPOLOGIES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v6e": "v6e:2x2"}
STEPS = 10  # in one call


@dataclass(frozen=True)
class Shape:
    """What is compiled. `images` train, a fifth as many validate."""

    images: int
    batch: int
    widths: tuple[int, ...]
    depth: int
    centres: int


# The whole network of the bundled cifar10 study; and as little as a check of every head needs.
WHOLE = Shape(24_000, 640, (64, 128, 256), 3, 30)
SMALLEST = Shape(500, 64, (8,), 1, 2)


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of one function on one TPU. The body of a loop counts once: figures are of one step."""

    tpu: str
    head: str
    what: str
    compile_s: float
    flop: float
    moved: float  # bytes
    arguments: int  # bytes
    temporary: int  # bytes
    estimate_s: float

    def row(self) -> str:
        """Of the table."""
        sizes = f"{self.moved / 1e9:.2f} GB | {self.arguments / 2**20:.0f} MB | {self.temporary / 2**20:.0f} MB"
        took = f"{self.estimate_s * 1e3:.2f} ms" if self.estimate_s > 0 else "not told"
        what = f"| {self.tpu} | {self.head} | {self.what} | {self.compile_s:.0f} s | {self.flop / 1e9:.1f} GFLOP"
        return f"{what} | {sizes} | {took} |"


HEADER = (
    "| TPU | loss | function | compiled in | work | memory traffic | arguments | temporaries | compiler's estimate |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def trainer(head: str, shape: Shape) -> Any:
    """The project's own, built on this CPU, over images of noise."""
    from affinity_search.search.training.fit import Trainer, TrainingConfig
    from affinity_search.search.training.networks.building import NetworkConfig

    facts = SOURCES["cifar10"]
    rng = np.random.default_rng(0)
    parts = []
    for count in (shape.images, shape.images // 5):
        images = rng.integers(0, 256, (count, *facts.shape), np.uint8)
        parts.append(Split(images, np.arange(count, dtype=np.int32) % facts.n_classes, (True, False) * 5))
    network = NetworkConfig(shape.widths, shape.depth, 0.9, head)
    training = TrainingConfig(2, shape.batch, 1e-3, augment=True, precision="mixed_bfloat16")
    return Trainer(devices.configure("cpu", 1), *parts, facts, network, training, shape.centres)


def functions(trained: Any, shape: Shape) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """(name, jitted function, arguments) of what a worker compiles."""
    import jax

    model, steps = trained._model, trained._steps
    state = steps.state()
    rows = STEPS, shape.batch
    order = np.zeros(rows, np.int32), np.zeros(rows, np.int32), np.ones(rows, np.float32)
    yield f"a training step of {shape.batch}", steps.several, (state, *order, np.int32(0), np.int32(STEPS))

    def predict(trainable: Any, others: Any, indices: Any) -> Any:
        return model.stateless_call(trainable, others, indices, training=False)[0]

    indices = np.zeros(trained._evaluation_batch, np.int32)
    yield f"prediction of {len(indices)}", jax.jit(predict), (state[0], state[1], indices)


def compiled(tpu: str, head: str, what: str, function: Any, arguments: tuple[Any, ...]) -> Compiled:
    """Compile for one chip of that TPU."""
    import jax
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGIES[tpu])
    chip = jax.sharding.SingleDeviceSharding(topology.devices[0])
    described = jax.tree.map(lambda one: jax.ShapeDtypeStruct(np.shape(one), one.dtype, sharding=chip), arguments)
    began = time.perf_counter()
    made = function.lower(*described).compile()
    took = time.perf_counter() - began
    cost, memory = made.cost_analysis(), made.memory_analysis()
    return Compiled(
        tpu,
        head,
        what,
        took,
        cost.get("flops", 0.0),
        cost.get("bytes accessed", 0.0),
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        cost.get("optimal_seconds", 0.0),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """A row for each function. Code 1 if anything does not compile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smallest", action="store_true", help="little networks: does everything compile?")
    parser.add_argument("--heads", default=",".join(HEADS))
    parser.add_argument("--tpus", default=",".join(TOPOLOGIES))
    asked = parser.parse_args(arguments)
    shape = SMALLEST if asked.smallest else WHOLE
    print(HEADER)
    failed = 0
    for head in asked.heads.split(","):
        trained = trainer(head, shape)
        for what, function, values in functions(trained, shape):
            for tpu in asked.tpus.split(","):
                try:
                    print(compiled(tpu, head, what, function, values).row(), flush=True)
                except Exception as error:  # of the compiler
                    failed += 1
                    print(f"| {tpu} | {head} | {what} | failed: {str(error).splitlines()[0][:200]} |", flush=True)
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
