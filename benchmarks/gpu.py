"""What a GPU (or, to try it, the CPU) makes of the article's network: seconds, macro F1, TFLOP/s and their share.

    make gpu-bench DATA=DIR                    # on the machine's first GPU, in an environment of its own (.venv-gpu)
    KERAS_BACKEND=jax make gpu-bench DATA=DIR  # the same on Keras' JAX backend (.venv-jax-gpu)
    python -m benchmarks.gpu --devices cpu --widths 8 16 --epochs 2 --short-epochs 1 --trials 3  # to try it

Through the real `launch`, on the bundled `cifar10-article` study at the article's λ = 0.43, σ = 90, m = 1 and the
precision that suits the device: one trial of 100 epochs, then 20 trials of 20 epochs for each number of workers on the
device. The peer is the device's own rate for products of large bfloat16 matrices, measured in the same run.

A worker's first trial compiles and does not count, unless it has no other, as in the one of 100 epochs; the whole
launch is told beside it. FLOP are those of the training's convolutions alone: scoring the epochs takes time and adds
none. With several workers their trials' FLOP are added up.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from affinity_search.search.devices.slots import plan
from affinity_search.studies.errors import AffinitySearchError
from benchmarks.commands import Command, machine

MATRIX = {"gpu:0": 8192, "cpu": 2048}  # rows and columns; one GPU, however many the machine has
TRAINING_IMAGES = 25_000 + 5 * 1_000  # n = 200: even classes keep 1,000 of their 5,000
SIDE = 32
KERNEL = 3 * 3
FIXED = ["space.lambda=0.43", "space.sigma=90", "space.n_centers=1"]


def flop_an_image(widths: list[int], depth: int) -> float:
    """Of training: two for each multiplication of the convolutions, and as much again for each of two gradients."""
    forward = 0.0
    for block, (before, width) in enumerate(pairwise([3, *widths])):
        pixels = (SIDE / 2**block) ** 2
        forward += 2 * KERNEL * pixels * width * (before + (depth - 1) * width)
    return 3 * forward


MATRIX_RATE = """
import sys, time
import numpy as np
from affinity_search.search import devices
from affinity_search.search.training.errors import UnfitMachineError
try:
    device = devices.configure(sys.argv[1])
except UnfitMachineError as error:
    sys.exit(str(error))
import keras
from keras import ops
side = int(sys.argv[2])
values = np.random.default_rng(0).standard_normal((side, side), np.float32)
left, right = (ops.cast(ops.convert_to_tensor(each), "bfloat16") for each in (values, values.T.copy()))
if keras.backend.backend() == "jax":
    import jax
    product = jax.jit(ops.matmul)
else:
    import tensorflow
    product = tensorflow.function(ops.matmul)
last = lambda result: float(ops.convert_to_numpy(ops.cast(result[0, 0], "float32")))  # waits for the device
last(product(left, right))
best = float("inf")
for _ in range(5):
    began = time.perf_counter()
    for _ in range(10):
        result = product(left, right)
    last(result)
    best = min(best, (time.perf_counter() - began) / 10)
print(2 * side**3 / best / 1e12, device.describe())
"""


def matrix_rate(device: str, side: int) -> tuple[float, str]:
    """TFLOP/s of bfloat16 products, and what the device calls itself; in a process of its own, that lets it go.

    In the environment of a worker there, which sees the same GPU. Ends the program with one line if it cannot be had.
    """
    try:
        (slot,) = plan(device, None)
    except AffinitySearchError as error:
        sys.exit(f"error: {error}")
    command = [sys.executable, "-P", "-c", MATRIX_RATE, slot.device, str(side)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | slot.environment)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        sys.exit(f"error: {said[-1]}")
    rate, _, name = done.stdout.partition(" ")
    return float(rate), name.strip()


@dataclass(frozen=True)
class Case:
    """Some trials of some epochs, `workers` at a time."""

    trials: int
    epochs: int
    workers: int


def run(command: Command, case: Case, asked: argparse.Namespace) -> tuple[float, float, float]:
    """Seconds of the launch, the median trial's once its worker has compiled, and the best macro F1."""
    name = f"gpu-{case.trials}x{case.epochs}-{case.workers}-{time.time():.0f}"
    began = time.monotonic()
    command.launch("cifar10-article", "--name", name, *options(case, asked.devices, asked.widths))
    took = time.monotonic() - began
    return took, statistics.median(compiled(command.trial_seconds(name))), float(command.export(name)["macro_f1"])


def options(case: Case, device: str, widths: Sequence[int]) -> list[str]:
    """Of `launch`, and of `plan`, which tells beforehand what such a launch takes."""
    settings = [f"training.epochs={case.epochs}", f"network.widths={list(widths)}", "training.precision=auto"]
    settings += ["sampler.kind=random", "pruner.kind=none", *FIXED]
    overrides = [word for setting in settings for word in ("--set", setting)]
    return ["--trials", str(case.trials), *placed(device, case.workers), *overrides]


def placed(device: str, workers: int) -> list[str]:
    """The launcher's options for so many workers on one device."""
    return ["--devices", device, "--workers" if device == "cpu" else "--workers-per-device", str(workers)]


def compiled(trials: Sequence[tuple[str, float]]) -> list[float]:
    """Seconds of those trials, (worker, seconds) in their order, that were not their worker's first; else of all."""
    seen: set[str] = set()
    later = []
    for worker, seconds in trials:
        if worker in seen:
            later.append(seconds)
        seen.add(worker)
    return later or [seconds for _, seconds in trials]


def row(case: Case, asked: argparse.Namespace, rate: float, measured: tuple[float, float, float]) -> str:
    """A case's line."""
    launch_s, trial_s, score = measured
    flop = flop_an_image(asked.widths, 3) * TRAINING_IMAGES * case.epochs
    achieved = case.workers * flop / trial_s / 1e12
    cells = [f"{case.trials} × {case.epochs}", str(case.workers), f"{launch_s:.0f}", f"{trial_s:.1f}"]
    cells += [f"{trial_s / case.epochs:.2f}", f"{score:.4f}", f"{achieved:.3g}", f"**{achieved / rate:.1%}**"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--devices", default="gpu:0", choices=list(MATRIX))
    parser.add_argument("--per-device", type=int, nargs="*", default=[1, 2, 3], help="workers")
    parser.add_argument("--epochs", type=int, default=100, help="of the one full trial")
    parser.add_argument("--short-epochs", type=int, default=20)
    parser.add_argument("--trials", type=int, default=20, help="short ones")
    parser.add_argument("--widths", type=int, nargs="*", default=[64, 128, 256])
    asked = parser.parse_args()
    rate, device = matrix_rate(asked.devices, MATRIX[asked.devices])
    print(f"{device}: products of bfloat16 matrices {rate:.3g} TFLOP/s; ", end="")
    print(f"a training image {flop_an_image(asked.widths, 3) / 1e9:.2g} GFLOP\n")
    print("| trials × epochs | workers | launch, s | a trial, s | an epoch, s | best macro F1 (article) ", end="")
    print("| TFLOP/s | share |\n|---|---|---|---|---|---|---|---|")
    command = Command("gpu", asked.data_dir)
    cases = [Case(1, asked.epochs, 1)]
    cases += [Case(asked.trials, asked.short_epochs, workers) for workers in asked.per_device]
    for case in cases:
        print(row(case, asked, rate, run(command, case, asked)), flush=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
