"""Seconds from the claim of a place to its first training step, trial by trial in one worker: compiled once.

    make claim-bench DATA=DIR

The real worker, Keras and SQLite; the first trial builds, traces and compiles, every later one only starts. Also counts
how often the network was traced. The peer is what the reference does, a network that is built and traced anew for each
trial: the same study in the same process, its trainer thrown away before each trial.

Tracing happens within the first step: where there is any, the time runs until that step is done, less what a later step
of the same trial takes; elsewhere until it begins. Batches are of 64 images, so that a step is short beside what is
measured, and an epoch is cut to a few steps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from affinity_search.search import devices
from affinity_search.search.api.opening import Asked, open_storage_for, open_study
from affinity_search.search.worker.setup import WorkerOptions, work
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.places.claims import Places
from affinity_search.storage.stored.agenda import OneStudy
from benchmarks.commands import machine

TRIALS = 6
ANEW = 3
STEPS = 8
SMALL = ("training.epochs=1", "training.batch=64", "sampler.kind=random")
CASES = {
    "digits": ("digits", ()),
    "CIFAR-10, widths 16, 32, 64": ("cifar10", ("network.widths=[16,32,64]", "data.minority=20")),
    "CIFAR-10": ("cifar10", ("data.minority=20",)),
}


@dataclass
class Start:
    """One trial, by the clock."""

    claimed: float
    traces: int  # by then, in this process
    calls: list[tuple[float, float, int]] = field(default_factory=list)  # of training: begun, done, how many steps

    @property
    def begun_s(self) -> float:
        """From the claim to the beginning of the first step."""
        return self.calls[0][0] - self.claimed

    @property
    def traced_s(self) -> float:
        """From the claim to the end of the first step, which traces and compiles, less what a later one takes."""
        _, done, count = self.calls[0]
        assert count == 1
        last_began, last_done, last_count = self.calls[-1]
        return max(self.begun_s, done - (last_done - last_began) / last_count - self.claimed)


class Watched:
    """A trainer's steps, whose calls are noted."""

    def __init__(self, steps: Any, trial: Start) -> None:
        self.steps = steps
        self._trial = trial

    def run(self, indices: Any, labels: Any, weights: Any, start: int, count: int) -> float:
        began = time.perf_counter()
        loss = float(self.steps.run(indices, labels, weights, start, count))
        self._trial.calls.append((began, time.perf_counter(), count))
        return loss


class Watch:
    """From its making on notes each trial of this process; with `anew` each of them builds its own trainer."""

    def __init__(self) -> None:
        from affinity_search.search.training import fit, schedule
        from affinity_search.search.training.networks import layers as images

        self.anew = False
        self.trials: list[Start] = []
        self.traces = 0
        claim, epochs, epoch, scale = Places.claim, StudyTrainer.epochs, fit.Trainer._fit, images.Scale.call

        def claimed(places: Any, holder: Any) -> Any:
            self.trials.append(Start(time.perf_counter(), self.traces))
            found = claim(places, holder)
            if found is None:
                self.trials.pop()
            return found

        def begun(trainer: Any, *what: Any, **options: Any) -> Any:
            if self.anew:
                trainer._trainer = None
            return epochs(trainer, *what, **options)

        def trained(trainer: Any, order: Any, should_stop: Any) -> float:
            trainer._steps = Watched(getattr(trainer._steps, "steps", trainer._steps), self.trials[-1])
            trainer._pace = schedule.Pace()  # begins with a call of one step
            return epoch(trainer, tuple(part[: STEPS * trainer._training.batch] for part in order), should_stop)

        def call(layer: Any, given: Any) -> Any:
            self.traces += 1
            return scale(layer, given)

        Places.claim, StudyTrainer.epochs = claimed, begun  # type: ignore[method-assign]
        fit.Trainer._fit, images.Scale.call = trained, call  # type: ignore[method-assign]

    def work(self, case: str, trials: int, data_dir: Path | None) -> list[Start]:
        """A worker uses up a study of that many places."""
        self.trials = []
        study, more = CASES[case]
        with tempfile.TemporaryDirectory(prefix="claim-") as folder:
            asked = Asked.of(study, None, [*SMALL, *more], trials)
            stored, _ = open_study(open_storage_for(f"sqlite:///{folder}/claim.db", asked), asked)
            work(OneStudy(stored), WorkerOptions("cpu", data_dir=data_dir))
        return self.trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    asked = parser.parse_args()
    devices.configure("cpu")
    watch = Watch()
    print("| study | first trial, s | later trials, s | traces in the first, in the later ", end="")
    print("| built and traced anew for each, s | ratio |\n|---|---|---|---|---|---|")
    for case in asked.cases:
        print(row(case, watch, asked.data_dir), flush=True)
    print(f"\n{machine()}")


def row(case: str, watch: Watch, data_dir: Path | None) -> str:
    """Ours, then the peer; the ratio is of medians, the first trial left out."""
    before, watch.anew = watch.traces, False
    first, *later = watch.work(case, TRIALS, data_dir)
    traces = f"{later[0].traces - before}, {watch.traces - later[0].traces}"
    watch.anew = True
    anew = [trial.traced_s for trial in watch.work(case, ANEW, data_dir)]
    seconds = [trial.begun_s for trial in later]
    ratio = statistics.median(anew) / statistics.median(seconds)
    cells = [case, f"{first.traced_s:.1f}", ", ".join(f"{one:.2f}" for one in seconds), traces]
    return f"| {' | '.join([*cells, ', '.join(f'{one:.1f}' for one in anew), f'**{ratio:.0f}**'])} |"


if __name__ == "__main__":
    main()
