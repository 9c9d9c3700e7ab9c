"""What a training step costs with each head, as a ratio to the softmax head's, on the article's CIFAR-10 network.

    python -m benchmarks.heads.steps                                    # some minutes on 2 cores
    python -m benchmarks.heads.steps --widths 16,32,64 --depth 1 --batch 128

All networks are built first; then they take turns, so that whatever else the machine does falls on all of them. The
least time of a step counts. The affinity heads have room for 30 centres a class and use all of them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from affinity_search.search import devices
from affinity_search.search.training.data.splits import Split
from affinity_search.studies.data import SOURCES
from affinity_search.studies.heads import HEADS
from benchmarks.commands import machine

BASELINE, CLASSES, ROOM = "softmax", 10, 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=lambda text: tuple(map(int, text.split(","))), default=(64, 128, 256))
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = devices.configure(options.device)
    least = measured(device, options.widths, options.depth, options.batch, options.rounds)
    print("| head | seconds a step | against softmax |\n|---|---|---|")
    for name, seconds in least.items():
        print(f"| `{name}` | {seconds:.4f} | {seconds / least[BASELINE]:.3f} |")
    print(f"\nwidths {options.widths}, depth {options.depth}, batch {options.batch}, float32; {machine()}")


def measured(device: devices.Device, widths: tuple[int, ...], depth: int, batch: int, rounds: int) -> dict[str, float]:
    """Seconds of a step, the least of the rounds, by head."""
    from affinity_search.search.training.fit import Trainer, TrainingConfig
    from affinity_search.search.training.networks.building import NetworkConfig

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, 32, 32, 3), np.uint8)
    split = Split(images, np.arange(batch, dtype=np.int32) % CLASSES, (False,) * CLASSES)
    indices, labels = np.arange(batch, dtype=np.int32)[None], split.labels[None]
    weights = np.ones((1, batch), np.float32)
    runs = {}
    for name, head in HEADS.items():
        network, training = NetworkConfig(widths, depth, 0.9, name), TrainingConfig(1, batch, 1e-3)
        trainer = Trainer(device, split, split.take(np.arange(10)), SOURCES["cifar10"], network, training, ROOM)
        trainer._begin({each.key: ROOM if each.sizes_arrays else 0.5 for each in head.required}, 0)
        trainer._steps.run(indices, labels, weights, 0, 1)  # compiles
        runs[name] = trainer._steps.run
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run(indices, labels, weights, 0, 1)
            least[name] = min(least[name], time.perf_counter() - began)
    return least


if __name__ == "__main__":
    main()
