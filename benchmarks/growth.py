"""Trials per second and seconds per claim, as a study and its team grow: PostgreSQL, stand-in training.

    make growth
    python -m benchmarks.growth --finished 10 1000 --workers 1 8 --trial-s 10

The real worker loop in a process for each worker: place, lease and its renewals, sampling, every report and the
pruner, the search for lost leases, the end of place and trial. In place of training each worker sleeps; in place of a
figure nothing is drawn. The study has so many finished trials before. Sampler and pruner are those that the bundled
MNIST study recommends, and each trial is better than all before it, so that none is pruned.

Two questions, two tables. How long does one worker wait for a claim when the study grows, where a trial takes no time?
And which share of the trials that sleeping workers could do is done when the team grows? All workers and the server
share this machine's cores: where these are full, the machine is the limit and not the service.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import postgres_server
import psutil
from fake_objective import FakeTrainer, fake_scores, install, replace_for_good
from making import make

from affinity_search.search.training.results import EpochScore
from affinity_search.search.worker.attempt import ask
from affinity_search.search.worker.setup import WorkerOptions, work
from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.places.claims import Places
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.study import load_study
from affinity_search.studies.files import load
from benchmarks.commands import machine
from benchmarks.filling import fill
from benchmarks.overhead import recommended
from benchmarks.stand_in import Timed

STUDY = "tiny"
REPORTS = 20
FINISHED = (10, 1_000, 10_000, 99_980)  # a study has 100,000 places at most
WORKERS = (1, 8, 64, 256)
BEFORE_A_TEAM = 100  # finished trials
TRIAL_S = 30.0
TRIALS_OF_ONE = 20
TRIALS_OF_SLEEPERS = 3  # each
TRIALS_OF_A_TEAM = 192  # where they take no time, all together
MOST_AT_ONCE = 64  # workers, where trials take no time
CONNECTIONS = 1_500  # three for a worker at most, and the server's own
READY_S = 900.0
OUTAGE_S = 30.0
# A child shares the memory of what its parent has imported.
PARENT = multiprocessing.get_context("forkserver")
PARENT.set_forkserver_preload(["making", "benchmarks.overhead", "affinity_search.search.view.publishing"])
COLUMNS = ["finished before", "workers", "a trial sleeps, s", "trials/s", "of what they could", "claim, s"]
COLUMNS += ["95 % of claims", "sampling, s", "95 %", "report, s", "95 %"]
COLUMNS += ["reading the study, s", "ms of processor a trial: worker", "server", "cores busy", "MB a worker"]


@dataclass(frozen=True)
class Team:
    """Workers in one study."""

    url: str
    finished: int
    workers: int
    trial_s: float
    trials_each: int

    @property
    def trials(self) -> int:
        return self.workers * self.trials_each


@dataclass(frozen=True)
class Told:
    """What one worker measured, in seconds by the clock, and of its processor.

    Its first trial is left out: a process imports in it what it has not used before.
    """

    periods: list[float]  # from claim to claim
    read_s: float
    cpu_s: float
    private_mb: float
    waits: tuple[list[float], list[float], list[float]]  # of each claim, proposal and report


def _worker(team: Team, number: int, barrier: Barrier, told: SimpleQueue[Told]) -> None:
    """The process of one worker."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - a worker's log, for the life of the process
    reports: list[float] = []
    met: list[tuple[float, float]] = []

    class Sleeping(FakeTrainer):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            barrier.wait(READY_S)
            met.append((time.perf_counter(), time.process_time()))

        def epochs(self, *args: Any, **options: Any) -> Iterator[EpochScore]:
            self.done = []
            # All begin at the same moment. A team does not: first trials, which are left out, end one after another.
            share = 1.0 if reports else (number + 1) / team.workers
            for epoch in range(REPORTS):
                time.sleep(share * team.trial_s / REPORTS)
                # A little better than every report before it: the pruner lets it go on.
                score = 0.9999 + time.time() % 100_000 / 1e10
                self.done.append(EpochScore(epoch, 0.5, fake_scores(score), 0.001))
                began = time.perf_counter()
                yield self.done[-1]
                reports.append(time.perf_counter() - began)

    claim, proposal = Timed(Places.claim), Timed(ask)
    install(replace_for_good)
    replace_for_good("affinity_search.search.worker.setup.StudyTrainer", Sleeping)
    replace_for_good("affinity_search.search.worker.attempt.ask", proposal)
    Places.claim = lambda places, holder: claim(places, holder)  # type: ignore[method-assign]
    # With a name, as a launcher's workers have one: a worker on its own would write the study's notes too. It does not
    # wait for half an hour when this program and its server have been ended.
    options = WorkerOptions("cpu", worker_id=f"worker-{number}", files=Path(tempfile.mkdtemp()), outage_s=OUTAGE_S)
    work(OneStudy(load_study(open_backend(team.url, create=False), STUDY)), options)
    met_at, cpu_before = met[0]
    first, *later = claim.began  # the last one finds no place
    periods = [end - begin for begin, end in itertools.pairwise(later)]
    private = psutil.Process().memory_full_info().uss / 2**20
    spent = time.process_time() - cpu_before
    waits = claim.took_s[1:-1], proposal.took_s[1:], reports[REPORTS:]
    told.put(Told(periods, first - met_at, spent, private, waits))


def measure(team: Team) -> list[str]:
    """The cells of a team's row."""
    _create(team)
    barrier, queue = PARENT.Barrier(team.workers + 1), PARENT.SimpleQueue()
    processes = [PARENT.Process(target=_worker, args=(team, n, barrier, queue)) for n in range(team.workers)]
    for process in processes:
        process.start()
    barrier.wait(READY_S)
    began, busy_before = time.monotonic(), _busy_s()
    told = [queue.get() for _ in processes]
    took_s, busy_s = time.monotonic() - began, _busy_s() - busy_before
    for process in processes:
        process.join()
        assert process.exitcode == 0, "a worker died"
    _check(team)
    return _cells(team, told, took_s, busy_s)


def _trials_each(workers: int, trial_s: float) -> int:
    return TRIALS_OF_SLEEPERS if trial_s else min(TRIALS_OF_ONE, TRIALS_OF_A_TEAM // workers)


def _create(team: Team) -> None:
    backend = open_backend(team.url, create=True)
    options = [*recommended(load("mnist")), f"training.epochs={REPORTS}"]
    fill(make(backend, STUDY, team.finished + team.trials, options), team.finished, REPORTS)
    with backend.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")  # as a server does by itself when rows come one by one
    backend.close()


def _busy_s() -> float:
    """Seconds that all processors have worked."""
    times = psutil.cpu_times()
    return float(times.user + times.system)


def _check(team: Team) -> None:
    """A fast run that lost something would be no run."""
    backend = open_backend(team.url, create=False)
    counts = Places.of(load_study(backend, STUDY)).counts()
    backend.close()
    assert counts.complete == team.finished + team.trials, counts


def _cells(team: Team, told: list[Told], took_s: float, busy_s: float) -> list[str]:
    rate = team.workers / statistics.mean(period for each in told for period in each.periods)
    could = team.workers / team.trial_s if team.trial_s else None
    kinds = zip(*(each.waits for each in told), strict=True)
    lists = [list(itertools.chain.from_iterable(kind)) for kind in kinds]
    waits = [f"{quantile:.3f}" for values in lists for quantile in np.quantile(values, (0.5, 0.95))]
    cells = [f"{team.finished:,}", str(team.workers), f"{team.trial_s:g}", f"{rate:.2f}"]
    cells += [f"{rate / could:.0%}" if could else "", *waits]
    cells += [f"{statistics.median(each.read_s for each in told):.2f}"]
    workers_s = sum(each.cpu_s for each in told)
    cells += [f"{1000 * each / team.trials:.0f}" for each in (workers_s, busy_s - workers_s)]
    cells += [f"{busy_s / took_s:.1f}"]
    return [*cells, f"{statistics.median(each.private_mb for each in told):.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finished", type=int, nargs="*", default=list(FINISHED), help="of the first table")
    parser.add_argument("--workers", type=int, nargs="*", default=list(WORKERS), help="of the second table")
    parser.add_argument("--trial-s", type=float, nargs="*", default=[TRIAL_S, 0.0], help="of the second table")
    asked = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    postgres_server.SETTINGS["max_connections"] = str(CONNECTIONS)
    with postgres_server.postgres_server() as server:
        rows = [(finished, 1, 0.0, TRIALS_OF_ONE) for finished in asked.finished]
        rows += [
            (BEFORE_A_TEAM, workers, trial_s, _trials_each(workers, trial_s))
            for trial_s in asked.trial_s
            for workers in asked.workers
            if trial_s or workers <= MOST_AT_ONCE
        ]
        for finished, workers, trial_s, trials in rows:
            database = server.fresh_database()
            team = Team(server.url(database), finished, workers, trial_s, trials)
            print(f"| {' | '.join(measure(team))} |", flush=True)
            server.execute(f"DROP DATABASE {database}")  # the cluster is in memory
    print(f"\n{REPORTS} reports a trial, PostgreSQL with fsync off on the same machine; {machine()}")


if __name__ == "__main__":
    main()
