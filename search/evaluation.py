"""Retraining the best trials with fresh seeds and scoring the test set, which a holdout search never reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from search.objective import Objective
from search.seeds import evaluation_seed
from search.trials import epoch_text, say
from search.worker import WorkerOptions
from storage.attributes import attributes
from storage.evaluations import latest_test, record_opening, record_scores
from storage.export import best_trials
from storage.study import StoredStudy

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from search.training.fit import EpochScore


def evaluate_best(study: StoredStudy, options: WorkerOptions, *, top: int, seeds: int) -> list[dict[str, Any]]:
    """Retrain each of the `top` best trials with `seeds` fresh seeds; store and return their test scores.

    Under `holdout` the validation images choose the epoch and the test set is scored once a seed. Under `article` the
    epoch is chosen on the test set as the reference does, which flatters.

    Returns:
        For each trial: `trial`, `protocol`, `params`, `macro_f1` (of the search) and `test` as in the export.

    Raises:
        NothingToExportError: no trial has finished.
        DataError, DeviceError: this machine cannot train the study.
    """
    chosen = best_trials(study, top)
    from search import devices

    devices.configure(options.device, options.threads)
    # Without the training images nothing can be evaluated, and then nothing is opened.
    objective = Objective(study.spec, study.settled_precision, options.data_dir)
    numbers = [evaluation_seed(study.spec.seed, number) for number in range(seeds)]
    return [_evaluate(study, objective, trial, row, numbers) for trial, row in chosen]


def _evaluate(
    study: StoredStudy, objective: Objective, trial: FrozenTrial, row: dict[str, Any], seeds: list[int]
) -> dict[str, Any]:
    record = record_opening(study, trial.number, seeds)
    objective.open_test()
    scores: list[dict[str, Any]] = []
    for seed in seeds:
        scores.append(_score(study, objective, row["params"], trial.number, seed))
        record_scores(study, record, scores)  # after each: Ctrl-C keeps what has been scored
    return {
        "trial": trial.number,
        "protocol": study.spec.protocol,
        "params": row["params"],
        "macro_f1": attributes(trial)["macro_f1"],
        "test": latest_test(study, trial.number),
    }


def _score(
    study: StoredStudy, objective: Objective, params: dict[str, float | int], trial: int, seed: int
) -> dict[str, Any]:
    protocol = study.spec.protocol
    what = f"trial {trial}, seed {seed}"
    result = objective.run(
        params,
        seed,
        _seldom(lambda score: say(f"{what}, {epoch_text(score, study.spec.training.epochs, protocol)}")),
        # The search's own room for centres, so that a retraining rounds as the search did.
        max_centers=study.spec.max_centers,
        restore_best=True,
    )
    score = objective.score_test() | {"best_epoch": result.best.number}
    say(f"{what}: macro F1 {score['macro_f1']:.4f} on the test set ({protocol}), epoch {result.best.number}")
    return score


def _seldom(tell: Callable[[EpochScore], None], every_s: float = 10.0) -> Callable[[EpochScore], None]:
    """Calls `tell` at most every `every_s`: a long training shows that it lives, a short one says only how it ended."""
    told = [time.monotonic()]

    def perhaps(score: EpochScore) -> None:
        if time.monotonic() - told[0] >= every_s:
            told[0] = time.monotonic()
            tell(score)

    return perhaps
