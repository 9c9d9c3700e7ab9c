"""Trials per second of our worker against plain Optuna's, where nothing but the storage costs time.

    make storage-bench
    make storage-pays  # with real trials' length, against our own worker with Optuna's statements

An empty objective of 20 reports, 1 to 8 processes, SQLite and PostgreSQL. Plain Optuna is `study.optimize`, set up as
well as we know: on SQLite the write-ahead log, synchronous=NORMAL and a long busy time-out, on PostgreSQL
pool_pre_ping, its own cache on both, and no budget: each process has its share of the trials. Ours is the real worker
loop with exact budget, leases, recovery, checkpoints and patience, but the drawing of pictures and the thread that
writes notes and figures are replaced by the tests' stand-ins, as plain Optuna has neither. Both use the same sampler
and no pruner. With `--trial-s` a trial takes that long, as a real one does. The peer "our worker, Optuna's statements"
is our worker without `rdb.py` and `drafts.py` of `storage/database/optuna_storage/`. The two sides take turns, each
time in a fresh database, so that other work on the machine meets both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import optuna
from fake_objective import FakeTrainer, fake_scores, install, replace_for_good
from making import make
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from postgres_server import Server, postgres_server

from affinity_search.search.training.results import EpochScore
from affinity_search.search.worker.setup import WorkerOptions, work
from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.database.optuna_storage.rdb import BatchingRDBStorage
from affinity_search.storage.places.claims import Claim, Holder
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.study import StoredStudy, load_study
from affinity_search.storage.trials.facts import MADE_BY
from affinity_search.storage.trials.sampling import make_pruner, make_sampler, suggest
from affinity_search.storage.trials.seeds import sampler_seed
from affinity_search.studies.model.parameters import Params
from benchmarks.commands import machine

STUDY = "tiny"
REPORTS = 20
TRIALS_A_PROCESS = {1: 40, 2: 20, 4: 15, 8: 10}
LONG_TRIALS = 4
BUSY_TIMEOUT_S = 60.0
EPOCHS = tuple(EpochScore(epoch, 0.5, fake_scores(1 - 1 / (epoch + 1)), 0.001) for epoch in range(REPORTS))
FORKS = multiprocessing.get_context("forkserver")
Meeting = Callable[[], None]  # a process is ready, and waits for the others
SAMPLERS: dict[str, Callable[[], BaseSampler]] = {"random": RandomSampler, "tpe": TPESampler}


@dataclass(frozen=True)
class Run:
    """One side in one fresh database."""

    url: str
    sampler: str
    processes: int
    trial_s: float = 0.0

    @property
    def trials_each(self) -> int:
        return LONG_TRIALS if self.trial_s else TRIALS_A_PROCESS[self.processes]

    @property
    def trials(self) -> int:
        return self.trials_each * self.processes


class _TunedConnection(sqlite3.Connection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = NORMAL")


def plain_storage(url: str, create: bool) -> RDBStorage:
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options = {"connect_args": {"timeout": BUSY_TIMEOUT_S, "factory": _TunedConnection}}
    return RDBStorage(url, engine_kwargs=options, skip_table_creation=not create)


def create_plain(run: Run) -> None:
    optuna.create_study(study_name=STUDY, storage=plain_storage(run.url, create=True))


def work_plain(run: Run, meet: Meeting) -> None:
    """A process of plain Optuna."""

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("lambda", 0.01, 1.0)
        trial.suggest_float("sigma", 1, 1000, log=True)
        trial.suggest_int("n_centers", 1, 10)
        for epoch in range(REPORTS):
            time.sleep(run.trial_s / REPORTS)
            trial.report(1 / (epoch + 1), epoch)
        return 1 / REPORTS

    storage = plain_storage(run.url, create=False)
    study = optuna.load_study(study_name=STUDY, storage=storage, sampler=SAMPLERS[run.sampler]())
    meet()
    study.optimize(objective, n_trials=run.trials_each)


def create_ours(run: Run) -> None:
    options = [f"training.epochs={REPORTS}", f"sampler.kind={run.sampler}", "pruner.kind=none"]
    backend = open_backend(run.url, create=True)
    make(backend, STUDY, run.trials, options)
    backend.close()


def work_ours(run: Run, meet: Meeting) -> None:
    """A process of ours: the real worker, with arithmetic for training."""

    class Empty(FakeTrainer):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            meet()  # the worker is ready

        def epochs(self, *args: Any, **options: Any) -> Iterator[EpochScore]:
            self.done = []
            for score in EPOCHS:
                time.sleep(run.trial_s / REPORTS)
                self.done.append(score)
                yield score

    install(replace_for_good)
    replace_for_good("affinity_search.search.worker.setup.StudyTrainer", Empty)
    work(
        OneStudy(load_study(open_backend(run.url, create=False), STUDY)),
        WorkerOptions("cpu", files=Path(tempfile.mkdtemp())),
    )


def work_with_optunas_statements(run: Run, meet: Meeting) -> None:
    """The same worker, but each parameter, attribute and report of a trial is a request of Optuna's own."""
    for method in ("set_trial_intermediate_value", "_get_prepared_new_trial"):
        setattr(BatchingRDBStorage, method, getattr(RDBStorage, method))
    replace_for_good("affinity_search.search.worker.attempt.ask", _ask_plainly)
    work_ours(run, meet)


def _ask_plainly(study: StoredStudy, claim: Claim, seed: int, holder: Holder, *others: Any) -> tuple[int, Params]:
    spec = study.spec
    study.optuna.sampler = make_sampler(spec.sampler, sampler_seed(spec.seed, claim.number), claim.params)
    study.optuna.pruner = make_pruner(spec.pruner, spec.training.epochs)
    trial = study.optuna.ask()
    params = suggest(trial, spec.space)
    trial.set_user_attr(MADE_BY, {"place": claim.number, "attempt": claim.attempt, "seed": seed, **asdict(holder)})
    return trial._trial_id, params


Side = tuple[Callable[[Run], None], Callable[[Run, Meeting], None]]
OURS: Side = (create_ours, work_ours)
PEERS: dict[str, Side] = {
    "plain Optuna": (create_plain, work_plain),
    "our worker, Optuna's statements": (create_ours, work_with_optunas_statements),
}


@dataclass(frozen=True)
class Speed:
    """Of one run, from the moment at which every process is ready to the end of the last."""

    trials_a_s: float
    cpu_ms_a_trial: float  # of the worker processes; PostgreSQL's own is not in it


def measure(side: Side, run: Run) -> Speed:
    create, body = side
    create(run)
    barrier, cpu_s = FORKS.Barrier(run.processes + 1), FORKS.SimpleQueue()
    processes = [FORKS.Process(target=_process, args=(body, run, barrier, cpu_s)) for _ in range(run.processes)]
    for process in processes:
        process.start()
    barrier.wait(120)
    began = time.monotonic()
    for process in processes:
        process.join()
        assert process.exitcode == 0, f"a process of {body.__name__} died"
    took_s = time.monotonic() - began
    _check(run)
    return Speed(run.trials / took_s, 1000 * sum(cpu_s.get() for _ in processes) / run.trials)


def _check(run: Run) -> None:
    """A fast run that lost something would be no run."""
    trials = optuna.load_study(study_name=STUDY, storage=plain_storage(run.url, create=False)).get_trials(False)
    assert [len(trial.intermediate_values) for trial in trials] == [REPORTS] * run.trials
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials)


def _process(body: Callable[[Run, Meeting], None], run: Run, barrier: Barrier, cpu_s: SimpleQueue[float]) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - a worker's log, for the life of the process
    began = []

    def meet() -> None:
        barrier.wait()
        began.append(time.process_time())

    body(run, meet)
    cpu_s.put(time.process_time() - began[0])


def compare(new_url: Callable[[], str], run: Run, peer: Side, rounds: int) -> list[list[Speed]]:
    """Of the peer, then of ours."""
    speeds: list[list[Speed]] = [[], []]
    for _ in range(rounds):
        for kept, side in zip(speeds, (peer, OURS), strict=True):
            kept.append(measure(side, replace(run, url=new_url())))
    return speeds


def row(database: str, sampler: str, processes: int, speeds: list[list[Speed]]) -> str:
    """Medians, and of the ratio of each round's two: ours to the peer's."""
    rates = [[speed.trials_a_s for speed in side] for side in speeds]
    cpu = [statistics.median(speed.cpu_ms_a_trial for speed in side) for side in speeds]
    ratios = [ours / plain for plain, ours in zip(*rates, strict=True)]
    cells = [database, sampler, str(processes), *(f"{statistics.median(side):.1f}" for side in rates)]
    cells += [f"**{statistics.median(ratios):.2f}**", f"{min(ratios):.2f} to {max(ratios):.2f}"]
    return f"| {' | '.join([*cells, *(f'{one:.0f}' for one in cpu)])} |"


def databases(folder: Path, server: Server) -> dict[str, Callable[[], str]]:
    """For each kind, what makes the URL of a fresh database."""

    def postgresql() -> str:
        return server.url(server.fresh_database()).replace("postgresql://", "postgresql+psycopg://", 1)

    return {"SQLite": lambda: f"sqlite:///{folder / secrets.token_hex(6)}.db", "PostgreSQL": postgresql}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="*", default=list(TRIALS_A_PROCESS))
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS), choices=list(SAMPLERS))
    parser.add_argument("--peer", default=next(iter(PEERS)), choices=list(PEERS))
    parser.add_argument("--trial-s", type=float, default=0.0, help="seconds that a trial takes beside its requests")
    options = parser.parse_args()
    print(f"| database | sampler | processes | {options.peer}, trials/s | ours | ratio | of single rounds ", end="")
    print("| peer, ms of processor a trial | ours |\n|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="storage-bench-") as folder, postgres_server() as server:
        for database, new_url in databases(Path(folder), server).items():
            for sampler in options.samplers:
                for processes in options.processes:
                    run = Run("", sampler, processes, options.trial_s)
                    speeds = compare(new_url, run, PEERS[options.peer], options.rounds)
                    print(row(database, sampler, processes, speeds), flush=True)
    print(f"\n{options.rounds} rounds, {REPORTS} reports a trial; {machine()}")


if __name__ == "__main__":
    main()
