"""Seconds from the claim of a place to its first training step, trial by trial in one worker: compiled once.

    make claim-bench DATA=DIR

The real worker, Keras and SQLite; the first trial builds and compiles, every later one only starts. Also counts how
often the network was traced.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from commands import machine

from search.definition import Asked, open_storage_for, open_study
from search.worker import WorkerOptions, work
from storage.places import Places

TRIALS = 6
SMALL = ("training.epochs=1", "sampler.kind=random")
STUDIES = {"digits": (), "cifar10": ("network.widths=[16,32,64]", "data.minority=20")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    data_dir = parser.parse_args().data_dir
    times: list[float] = []
    traced: list[int] = []
    _watch(times, traced)
    print("| study | first trial, s | later trials, s | traces in the first, in the later |\n|---|---|---|---|")
    for study, more in STUDIES.items():
        times.clear()
        traced.clear()
        _run(study, more, data_dir)
        steps = [step - claim for claim, step in zip(times[::2], times[1::2], strict=False)]
        later = ", ".join(f"{seconds:.2f}" for seconds in steps[1:])
        print(f"| {study} | {steps[0]:.1f} | {later} | {traced[1]}, {traced[-1] - traced[1]} |", flush=True)
    print(f"\n{machine()}")


def _watch(times: list[float], traced: list[int]) -> None:
    """Note when a place is claimed and its first step asked for, and how many traces there were after each trial."""
    from search import devices

    devices.configure("cpu")
    from search.training import fit, images

    claim, epoch, scale = Places.claim, fit.Trainer._fit, images.Scale.call
    count = [0]

    def claimed(self: Any, holder: Any) -> Any:
        found = claim(self, holder)
        traced.append(count[0])
        times.append(time.perf_counter())
        return found

    def begun(self: Any, order: Any, should_stop: Any) -> float:
        times.append(time.perf_counter())
        return epoch(self, order, should_stop)

    def call(self: Any, given: Any) -> Any:
        count[0] += 1
        return scale(self, given)

    Places.claim, fit.Trainer._fit, images.Scale.call = claimed, begun, call  # type: ignore[method-assign]


def _run(study: str, more: tuple[str, ...], data_dir: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="claim-") as folder:
        asked = Asked.of(study, None, [*SMALL, *more], TRIALS)
        stored, _ = open_study(open_storage_for(f"sqlite:///{folder}/claim.db", asked), asked)
        work(stored, WorkerOptions("cpu", data_dir=data_dir))


if __name__ == "__main__":
    main()
