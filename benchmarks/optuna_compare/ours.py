"""affinity-search: its real command and storage; only Keras is replaced, by the tests' arithmetic."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import optuna
from fake_objective import FakeTrainer, install, replace_for_good
from making import make
from optuna.trial import TrialState
from waiting import until

import affinity_search.search.cli.commands.worker
import affinity_search.search.worker.setup  # noqa: F401 - for the fork server, which imports what every worker needs
from affinity_search.search.cli import main
from affinity_search.search.training.results import EpochScore
from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.recovery import LOOKS_A_LEASE, RecoveryThread
from affinity_search.storage.study import load_study
from optuna_compare import plain
from optuna_compare.conditions import STUDY, Conditions
from optuna_compare.processes import meet_others

RECOVERED_LOOK_S = 1.0


def create(conditions: Conditions) -> None:
    """Once, before any worker: as many places as trials are wanted."""
    backend = open_backend(conditions.url, create=True)
    make(backend, STUDY, conditions.trials, [f"training.epochs={conditions.epochs}", f"seed={conditions.seed or 0}"])
    backend.close()


def open_fresh(conditions: Conditions) -> None:
    """What the first command of a search does; several may be the first."""
    meet_others()
    make(open_backend(conditions.url, create=True))


def work(conditions: Conditions, worker: str) -> None:
    """The body of a worker process: `affinity-search worker`."""
    if conditions.dies_in_ask:
        plain.die_in_ask()
    if conditions.gate is not None:
        os.environ["FAKE_GATE"] = str(conditions.gate)
    os.environ["AFFINITY_SEARCH_STORAGE"] = conditions.url
    install(replace_for_good)
    replace_for_good("affinity_search.search.worker.setup.StudyTrainer", _paced(conditions))
    lease = [] if conditions.grace_s is None else ["--lease-s", str(conditions.grace_s)]
    sys.argv = ["affinity-search", "worker", STUDY, "--device", "cpu", "--worker-id", worker, *lease]
    meet_others()
    main()


def recover(conditions: Conditions) -> None:
    """What every worker does beside its work, until nothing is left to mend."""
    assert conditions.grace_s is not None
    backend = open_backend(conditions.url, create=False)
    study = load_study(backend, STUDY)
    places = Places.of(study)

    def done() -> bool:
        time.sleep(RECOVERED_LOOK_S)
        trials = study.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return not trials and not places.held()

    meet_others()
    with RecoveryThread(study, lambda line: print(line, flush=True), conditions.grace_s / LOOKS_A_LEASE):
        until(done, "every place and trial to be closed")


def left(conditions: Conditions, trials: list[optuna.trial.FrozenTrial]) -> list[str]:
    """What still looks as if somebody worked on it."""
    running = sum(trial.state == TrialState.RUNNING for trial in trials)
    held = _count(conditions, PlaceState.HELD)
    return [f"{running} RUNNING"] * bool(running) + [f"{held} places held"] * bool(held)


def retries(conditions: Conditions, trials: list[optuna.trial.FrozenTrial]) -> int:
    """How many trainings the dead workers' places will get."""
    return _count(conditions, PlaceState.FREE)


def _count(conditions: Conditions, state: PlaceState) -> int:
    backend = open_backend(conditions.url, create=False)
    rows = Places.of(load_study(backend, STUDY)).rows(state)
    backend.close()
    return len(rows)


def _paced(conditions: Conditions) -> type[FakeTrainer]:
    class PacedObjective(FakeTrainer):
        """Takes its time between two reports, as a training does."""

        def epochs(self, params: dict[str, float | int], seed: int, **options: Any) -> Iterator[EpochScore]:
            pace_s = plain.begin(conditions, seed)
            for score in super().epochs(params, seed, **options):
                time.sleep(pace_s)
                yield score

    return PacedObjective
