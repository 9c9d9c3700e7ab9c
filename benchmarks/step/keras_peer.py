"""Our own training step through our own Trainer, on random images of CIFAR-10's shape.

    python keras_peer.py PRECISION BATCH STEPS THREADS [WORD …] [widths=W,W,…]

WORD is xla, unfused, given, augmented or without_onednn: what is different from a worker's own step.

For each line on stdin, trains an epoch of STEPS steps and prints the seconds it took, by the clock and of the
processor.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from affinity_search.search import devices
from affinity_search.studies.data import SOURCES


def main() -> None:
    precision, (batch, steps, threads) = sys.argv[1], map(int, sys.argv[2:5])
    if "without_onednn" in sys.argv:
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    device = devices.configure("cpu", threads)
    if "xla" in sys.argv:
        device.compiles_with_xla = lambda: True  # type: ignore[attr-defined]
    if "given" in sys.argv:  # no look-up: every step trains on the same images
        from affinity_search.search.training.networks.layers import Table

        Table.call = lambda self, indices: self.table[:batch]
    if "unfused" in sys.argv:
        device.fused_batch_norm = lambda: None  # type: ignore[method-assign]
    from affinity_search.search.training.data.splits import Split
    from affinity_search.search.training.fit import Trainer, TrainingConfig
    from affinity_search.search.training.networks.building import NetworkConfig

    images = np.random.default_rng(0).integers(0, 256, (batch * steps, 32, 32, 3), dtype=np.uint8)
    split = Split(images, (np.arange(batch * steps) % 10).astype("int32"))
    chosen = [word.removeprefix("widths=") for word in sys.argv if word.startswith("widths=")]
    widths = tuple(map(int, chosen[0].split(","))) if chosen else (64, 128, 256)
    network = NetworkConfig(widths, 3, 0.9, "affinity")
    training = TrainingConfig(1, batch, 5e-3, augment="augmented" in sys.argv, precision=precision)  # type: ignore[arg-type]
    trainer = Trainer(device, split, split.take(np.arange(10)), SOURCES["cifar10"], network, training, max_centers=30)

    def train() -> None:
        trainer.run({"lambda": 0.43, "sigma": 90.0, "n_centers": 30}, seed=0)

    train()
    for _ in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        train()
        print(time.perf_counter() - began, time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    main()
