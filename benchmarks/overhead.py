"""What the service costs a trial: seconds from claim to end that are neither training nor scoring.

    make overhead

The real worker with an objective that returns at once, 20 reports a trial, the sampler and pruner that the bundled
MNIST study recommends (each trial is better than all before it, so that none is pruned), in studies that have 1 to
10,000 finished trials already, on SQLite and PostgreSQL. Before its first claim a worker reads the whole study: that
stands apart. A checkpoint's cost is measured with the state of the bundled CIFAR-10 network. Shares are of a trial of
60 s.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fake_objective import FakeObjective, fake_scores
from making import make, worker_for
from postgres_server import postgres_server

from benchmarks.commands import machine
from benchmarks.filling import fill
from search.checkpointing import WRITES_SHARE, Checkpointer
from search.training.checkpoints import TrainingState
from search.training.results import EpochScore, TrainingResult
from storage.backend import Backend, open_backend
from storage.patience import Patience
from storage.study import load_study
from studies.files import load
from studies.spec import StudySpec

STUDY = "tiny"
REPORTS = 20
TRIAL_S = 60.0
FINISHED = (1, 10, 1_000, 10_000)
TRIALS = 10
# The bundled CIFAR-10 network's weights, and Adam's two moments of each.
STATE_FLOATS = 3 * 1_150_000


@dataclass(frozen=True)
class Cost:
    """Seconds of single trials of one worker, in their order."""

    start_s: float  # of reading the study, before the first claim
    seconds: list[float]
    cpu_s: list[float]  # of the worker's process alone: the same whatever else the machine does

    def cells(self) -> list[str]:
        median, cpu = statistics.median(self.seconds), statistics.median(self.cpu_s)
        cells = [f"{self.start_s:.2f}", f"{self.seconds[0]:.3f}", f"{median:.3f}", f"{max(self.seconds):.3f}"]
        return [*cells, f"**{max(self.seconds) / TRIAL_S:.2%}**", f"{cpu:.3f}", f"**{cpu / TRIAL_S:.2%}**"]


def recommended(spec: StudySpec) -> list[str]:
    """The sampler and pruner of a study as overrides for another."""
    written = []
    for section, chosen in (("sampler", spec.sampler), ("pruner", spec.pruner)):
        options = {"kind": chosen.kind, **chosen.options}
        written.append(f"{section}={{{', '.join(f'{key}={_toml(value)}' for key, value in options.items())}}}")
    return written


def _toml(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value).lower()


def measure(url: str, finished: int) -> Cost:
    """A worker that comes to a study of that many finished trials."""
    backend = open_backend(url, create=True)
    overrides = [*recommended(load("mnist")), f"training.epochs={REPORTS}"]
    study = make(backend, STUDY, finished + TRIALS, overrides)
    fill(study, finished, REPORTS)
    backend.close()
    return _trials(open_backend(url, create=False))


class Best(FakeObjective):
    """Each trial is better than all before it."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._trained = 0

    def run(self, *args: Any, keep: Callable[[TrainingState], None], **options: Any) -> TrainingResult:
        self._trained += 1
        done: list[EpochScore] = []
        for epoch in range(self._epochs):
            done.append(EpochScore(epoch, 0.5, fake_scores(1 - 1e-3 / (epoch + 1) / self._trained), 0.001))
            keep(TrainingState(tuple(done), {}))
            args[2](done[-1])
        return TrainingResult(tuple(done))


def _trials(backend: Backend) -> Cost:
    worker = worker_for(load_study(backend, STUDY).made_patient(Patience(print)))
    worker.objective = Best(REPORTS)  # type: ignore[assignment]
    began = time.monotonic()
    worker.study.read_ahead()
    cost = Cost(time.monotonic() - began, [], [])
    for _ in range(TRIALS):
        began, cpu_began = time.monotonic(), time.process_time()
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        with contextlib.redirect_stderr(io.StringIO()):
            worker.run(claim, lambda: False)
        cost.seconds.append(time.monotonic() - began)
        cost.cpu_s.append(time.process_time() - cpu_began)
    ended = worker.study.optuna.get_trials(deepcopy=False)[-1]
    assert len(ended.intermediate_values) == REPORTS
    backend.close()
    return cost


def checkpoint_s(folder: Path) -> float:
    """Seconds for one checkpoint of the CIFAR-10 network."""
    variables = {"weights": np.random.default_rng(0).random(STATE_FLOATS, np.float32)}
    seconds = []
    for number in range(5):
        checkpoint = Checkpointer(folder / f"{number}.npz", {"seed": number}, print)
        checkpoint.keep(TrainingState((EpochScore(0, 0.5, fake_scores(0.5), 1.0),), variables))
        began = time.monotonic()
        checkpoint.write()
        seconds.append(time.monotonic() - began)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finished", type=int, nargs="*", default=list(FINISHED))
    finished = parser.parse_args().finished
    print("| database | finished trials | before the first claim, s | first trial, s ", end="")
    print(f"| median of {TRIALS}, s | slowest, s | its share of 60 s ", end="")
    print("| processor, median, s | share |\n|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder, postgres_server() as server:
        databases: dict[str, Callable[[], str]] = {
            "SQLite": lambda: f"sqlite:///{Path(folder) / secrets.token_hex(6)}.db",
            "PostgreSQL": lambda: server.url(server.fresh_database()),
        }
        for database, new_url in databases.items():
            for count in finished:
                cells = [database, f"{count:,}", *measure(new_url(), count).cells()]
                print(f"| {' | '.join(cells)} |", flush=True)
        write_s = checkpoint_s(Path(folder))
    writes = TRIAL_S / (WRITES_SHARE * write_s)
    print(
        f"\nA checkpoint takes {write_s:.3f} s; in {TRIAL_S:.0f} s it is written {writes:.0f} times at most, ", end=""
    )
    print(f"{1 / WRITES_SHARE:.0%} of the time. {machine()}")


if __name__ == "__main__":
    main()
