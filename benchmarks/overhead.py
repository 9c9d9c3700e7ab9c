"""What the service costs a trial: seconds from claim to end that are neither training nor scoring.

    make overhead
    PYTHONPATH=tests python -m benchmarks.overhead --pruner median  # instead of the bundled studies'

The real worker with a stand-in for a trial of 60 s and 20 reports (`stand_in.py`), the sampler and pruner that the
bundled MNIST study recommends (each trial is better than all before it, so that none is pruned), in studies that have 1
to 10,000 finished trials already, on SQLite and PostgreSQL. Counted are sampling, reports, pruning, the lease and its
renewals, the copy of the training state after each epoch and the checkpoints that the rule allows in 60 s,
the history that pictures are drawn from, the end of the place and of the Optuna trial. Before its first claim a worker
reads the whole study: that stands apart. Not counted are the threads that look for lost leases and write the study's
notes, which belong to no trial. Shares are of the 60 s.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from making import make, worker_for
from postgres_server import postgres_server

from affinity_search.search import devices
from affinity_search.search.view.pictures import Album
from affinity_search.search.worker.loop import Worker
from affinity_search.storage import DEFAULT_LEASE_S
from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.database.patience import Patience
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.places.leases import RENEWALS_A_LEASE
from affinity_search.storage.study import load_study
from affinity_search.studies.files import load
from affinity_search.studies.model.spec import StudySpec
from benchmarks.commands import machine
from benchmarks.filling import fill
from benchmarks.stand_in import CLASS_SIZES, Minute, Trial

STUDY = "tiny"
REPORTS = 20
TRIAL_S = 60.0
FINISHED = (1, 10, 1_000, 10_000)
TRIALS = 10
RENEWALS = int(TRIAL_S * RENEWALS_A_LEASE / DEFAULT_LEASE_S)
# What the bundled MNIST study had before halving.
MEDIAN = "pruner={kind='median', n_warmup_steps=3}"
COLUMNS = [
    *("database", "finished trials", "before the first claim, s", "first trial, s", f"median of {TRIALS}, s"),
    *("slowest, s", "its share of 60 s", "processor, median, s", "share"),
]


@dataclass(frozen=True)
class Cost:
    """Seconds of single trials of one worker, in their order."""

    start_s: float  # of reading the study, before the first claim
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)  # of the worker's process alone: the same whatever else runs

    def cells(self) -> list[str]:
        median, cpu = map(statistics.median, (self.seconds, self.cpu_s))
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


def measure(url: str, finished: int, overrides: list[str], minute: Minute, files: Path) -> Cost:
    """A worker that comes to a study of that many finished trials."""
    backend = open_backend(url, create=True)
    fill(make(backend, STUDY, finished + TRIALS, [*overrides, f"training.epochs={REPORTS}"]), finished, REPORTS)
    backend.close()
    backend = open_backend(url, create=False)
    worker = worker_for(load_study(backend, STUDY).made_patient(Patience(print)))
    worker.trainer = minute  # type: ignore[assignment]
    worker.files = StudyFiles(files, worker.study.token)
    worker.album = Album(worker.files, CLASS_SIZES, _no_pictures)
    cost = _trials(worker, minute)
    ended = worker.study.optuna.get_trials(deepcopy=False)[-1]
    assert ended.state.is_finished(), ended
    assert len(ended.intermediate_values) == REPORTS
    backend.close()
    return cost


def _no_pictures(message: str) -> None:
    raise AssertionError(message)


def _trials(worker: Worker, minute: Minute) -> Cost:
    began = time.monotonic()
    worker.study.read_ahead()
    cost = Cost(time.monotonic() - began)
    for _ in range(TRIALS):
        began, cpu_began = time.monotonic(), time.process_time()
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        minute.renew = lambda claim=claim: worker.places.renew(claim)  # type: ignore[misc]
        with contextlib.redirect_stderr(io.StringIO()):
            worker.run(claim, lambda: False)
        cost.seconds.append(time.monotonic() - began)
        cost.cpu_s.append(time.process_time() - cpu_began)
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finished", type=int, nargs="*", default=list(FINISHED))
    parser.add_argument("--pruner", choices=["recommended", "median"], default="recommended")
    asked = parser.parse_args()
    overrides = recommended(load("mnist"))
    if asked.pruner == "median":
        overrides = [*overrides[:1], MEDIAN]
    devices.configure("cpu")
    minute = Minute(Trial(TRIAL_S, REPORTS, RENEWALS))
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    trials = 0
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder, postgres_server() as server:
        databases: dict[str, Callable[[], str]] = {
            "SQLite": lambda: f"sqlite:///{Path(folder) / secrets.token_hex(6)}.db",
            "PostgreSQL": lambda: server.url(server.fresh_database()),
        }
        for database, new_url in databases.items():
            for count in asked.finished:
                cost = measure(new_url(), count, overrides, minute, Path(folder) / "files")
                print(f"| {' | '.join([database, f'{count:,}', *cost.cells()])} |", flush=True)
                trials += TRIALS
    print(f"\n{state_costs(minute, trials)} {overrides[1]}; {machine()}")


def state_costs(minute: Minute, trials: int) -> str:
    """What of a trial's seconds went into its state."""
    copies, writes = minute.copy, minute.write
    return (
        f"Of a trial's seconds {copies.seconds / trials:.3f} s are {REPORTS} copies of a state of "
        f"{minute.state_mb:.1f} MB, {writes.seconds / trials:.3f} s are {writes.calls / trials:.1f} checkpoints of it."
    )


if __name__ == "__main__":
    main()
