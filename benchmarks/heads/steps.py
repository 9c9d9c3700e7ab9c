"""What a training step costs with each head, as a ratio to the softmax head's, on the article's CIFAR-10 network.

    python -m benchmarks.heads.steps                                    # ten minutes and more on 2 cores
    python -m benchmarks.heads.steps --widths 16,32,64 --depth 1 --batch 128

All networks are built and compiled first. Then come rounds, in each of which every head trains one step, in an order
drawn anew. A head's ratio is to the softmax step of the same round, so what else the machine does falls on both. Told
is the median of the rounds' ratios, with the interval in which 95 % of the medians of rounds drawn again lie. The
softmax head takes part once more under another name: its ratio must be 1, and how far it is not is the method's own
error. Counted is processor time, all threads together: a program beside it takes away the processor, but not the time.
The affinity heads have room for 30 centres a class and use all of them.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from affinity_search.search import devices
from affinity_search.search.training.data.splits import Split
from affinity_search.studies.data import SOURCES
from affinity_search.studies.heads import HEADS
from benchmarks.commands import machine

BASELINE, CONTROL, CLASSES, ROOM = "softmax", "softmax again", 10, 30
CLOCKS: dict[str, Callable[[], float]] = {"processor": time.process_time, "wall": time.perf_counter}
DRAWS = 10_000

Seconds = dict[str, NDArray[np.float64]]  # (rounds,) by head


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=lambda text: tuple(map(int, text.split(","))), default=(64, 128, 256))
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64, help="small, as R(w) costs the same whatever the batch")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=CLOCKS, default="processor", help="wall on a GPU: it computes on its own")
    options = parser.parse_args()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it takes nine networks for one that is traced again
    device = devices.configure(options.device, options.threads)
    steps = compiled(device, options.widths, options.depth, options.batch)
    print(markdown(measured(steps, options.rounds, CLOCKS[options.clock])))
    print(
        f"\nwidths {options.widths}, depth {options.depth}, batch {options.batch}, float32; {device.describe()}; "
        f"{options.rounds} rounds, {options.clock} time; {machine()}"
    )


def compiled(
    device: devices.Device, widths: tuple[int, ...], depth: int, batch: int
) -> dict[str, Callable[[], object]]:
    """One training step by head, each traced and run once."""
    from affinity_search.search.training.fit import Trainer, TrainingConfig
    from affinity_search.search.training.networks.building import NetworkConfig

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, 32, 32, 3), np.uint8)
    split = Split(images, np.arange(batch, dtype=np.int32) % CLASSES, (False,) * CLASSES)
    one = np.arange(batch, dtype=np.int32)[None], split.labels[None], np.ones((1, batch), np.float32), 0, 1
    steps: dict[str, Callable[[], object]] = {}
    for name in (*HEADS, CONTROL):
        head = name if name in HEADS else BASELINE
        network, training = NetworkConfig(widths, depth, 0.9, head), TrainingConfig(1, batch, 1e-3)
        trainer = Trainer(device, split, split.take(np.arange(10)), SOURCES["cifar10"], network, training, ROOM)
        trainer._begin({each.key: ROOM if each.sizes_arrays else 0.5 for each in HEADS[head].required}, 0)
        steps[name] = lambda run=trainer._steps.run: run(*one)  # type: ignore[misc]
        steps[name]()
    return steps


def measured(steps: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> Seconds:
    """Seconds of each head's step in every round."""
    random, names = np.random.default_rng(0), list(steps)
    seconds = {name: np.zeros(rounds) for name in names}
    for number in range(rounds):
        for place in random.permutation(len(names)):
            began = clock()
            steps[names[place]]()
            seconds[names[place]][number] = clock() - began
    return seconds


def ratio(seconds: NDArray[np.float64], baseline: NDArray[np.float64]) -> tuple[float, float, float]:
    """The median of the rounds' ratios, and its 95 % interval by the bootstrap over rounds."""
    ratios = seconds / baseline
    drawn = np.random.default_rng(0).integers(0, len(ratios), (DRAWS, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


def markdown(seconds: Seconds) -> str:
    """A line for each head, the baseline left out."""
    lines = ["| head | seconds a step | against softmax | 95 % interval |", "|---|---|---|---|"]
    for name, spent in seconds.items():
        if name != BASELINE:
            middle, low, high = ratio(spent, seconds[BASELINE])
            lines.append(f"| `{name}` | {np.median(spent):.3f} | {middle:.3f} | {low:.3f} to {high:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
