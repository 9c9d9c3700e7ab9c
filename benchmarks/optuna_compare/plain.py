"""Plain Optuna, set up as its documentation recommends for each case.

The tutorial on parallelisation (one study created first, or `load_if_exists`), the FAQ on SQLite (a time-out of 20 s;
it advises against SQLite for parallel work), the recipes on heartbeats (with a retry callback) and `MaxTrialsCallback`.
"""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from typing import Any

import optuna
from fake_objective import fake_macro_f1
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState
from waiting import until

from optuna_compare.conditions import QUEUED, STUDY, Conditions
from optuna_compare.processes import meet_others

SQLITE_TIMEOUT_S = 20.0
MAX_RETRY = 3

warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_storage(conditions: Conditions) -> RDBStorage:
    options: dict[str, Any] = {}
    if conditions.grace_s is not None:
        options = {
            "heartbeat_interval": max(1, conditions.grace_s // 4),
            "grace_period": conditions.grace_s,
            "heartbeat_stale_trial_callback": RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRY),
        }
    engine: dict[str, Any] = {"pool_pre_ping": True}
    if conditions.is_sqlite():
        engine = {"connect_args": {"timeout": SQLITE_TIMEOUT_S}} if conditions.documented_timeout else {}
    return RDBStorage(conditions.url, engine_kwargs=engine, **options)


def create(conditions: Conditions) -> None:
    """Once, before any worker."""
    optuna.create_study(study_name=STUDY, storage=open_storage(conditions))


def create_queued(conditions: Conditions) -> None:
    """With `QUEUED` trials in Optuna's own queue."""
    study = optuna.create_study(study_name=STUDY, storage=open_storage(conditions))
    for number in range(QUEUED):
        study.enqueue_trial({"lambda": (number + 1) / QUEUED, "sigma": 10.0, "n_centers": 1})


def open_fresh(conditions: Conditions) -> None:
    """What the first lines of every process of a distributed search do."""
    meet_others()
    optuna.create_study(study_name=STUDY, storage=open_storage(conditions), load_if_exists=True)


def work(conditions: Conditions, worker: str) -> None:
    """The body of a worker process."""
    if conditions.dies_in_ask:
        die_in_ask()
    study = optuna.load_study(
        study_name=STUDY, storage=open_storage(conditions), sampler=TPESampler(seed=conditions.seed)
    )
    callbacks = []
    if conditions.counted_states is not None:
        states = tuple(TrialState[name] for name in conditions.counted_states)
        callbacks.append(MaxTrialsCallback(conditions.trials, states=states))
    meet_others()
    study.optimize(
        lambda trial: _objective(trial, conditions, worker),
        n_trials=conditions.n_trials,
        callbacks=callbacks,
        catch=(Exception,),
    )


def recover(conditions: Conditions) -> None:
    """What `study.optimize` does before each trial."""
    study = optuna.load_study(study_name=STUDY, storage=open_storage(conditions))
    meet_others()
    fail_stale_trials(study)


def left(conditions: Conditions, trials: list[optuna.trial.FrozenTrial]) -> list[str]:
    """What still looks as if somebody worked on it."""
    running = sum(trial.state == TrialState.RUNNING for trial in trials)
    return [f"{running} RUNNING"] if running else []


def retries(conditions: Conditions, trials: list[optuna.trial.FrozenTrial]) -> int:
    """How many trainings the dead workers' trials will get."""
    return sum(trial.state == TrialState.WAITING for trial in trials)


def die_in_ask() -> None:
    """From now on this process is killed inside `ask`, when its trial exists already and its parameters do not."""

    def before_trial(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    TPESampler.before_trial = before_trial  # type: ignore[method-assign,assignment]


def begin(conditions: Conditions, key: int) -> float:
    """Note the training that begins; returns the seconds between its reports, which differ from trial to trial."""
    if conditions.runs is not None:
        with conditions.runs.open("a") as file:
            file.write(f"{key}\n")
    return conditions.epoch_s * random.Random(key).uniform(0.5, 1.5)


def _objective(trial: optuna.Trial, conditions: Conditions, worker: str) -> float:
    trial.set_user_attr("worker", worker)
    params: dict[str, float | int] = {
        "lambda": trial.suggest_float("lambda", 0.01, 1.0),
        "sigma": trial.suggest_float("sigma", 1, 1000, log=True),
        "n_centers": trial.suggest_int("n_centers", 1, 10),
    }
    pace_s = begin(conditions, trial.number)
    values = []
    for epoch in range(conditions.epochs):
        if epoch == 1 and conditions.gate is not None:
            until(conditions.gate.exists, "the gate to open")
        time.sleep(pace_s)
        values.append(1.0 - fake_macro_f1(params, trial.number, epoch))
        trial.report(values[-1], epoch)
    return min(values)
