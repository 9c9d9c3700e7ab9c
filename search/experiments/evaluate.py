"""Retraining the best trials with fresh seeds and scoring the test set, which a holdout search never reads."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affinity_search.search.view.publishing import write_note
from affinity_search.search.worker.images import StudyImages
from affinity_search.search.worker.loop import epoch_text, say
from affinity_search.search.worker.setup import WorkerOptions
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.database.failures import first_line
from affinity_search.storage.results.evaluations import latest_test, record_opening, record_scores, stored_scores
from affinity_search.storage.results.export import Scored, best_trials
from affinity_search.storage.study import StoredStudy
from affinity_search.studies.metrics import score_of
from affinity_search.studies.seeds import evaluation_seed

if TYPE_CHECKING:
    from affinity_search.search.training.results import EpochScore
    from affinity_search.studies.model.parameters import Params
    from affinity_search.studies.model.spec import StudySpec


@dataclass(frozen=True)
class Plan:
    """Which trials are scored with which seeds, and which of these trainings are still to be done."""

    chosen: list[Scored]  # the best first
    seeds: list[int]
    missing: dict[int, list[int]]  # the trial's number: its seeds without a stored score

    @property
    def trainings(self) -> int:
        """How many trainings are still to be done."""
        return sum(map(len, self.missing.values()))


def plan(study: StoredStudy, *, top: int, seeds: int) -> Plan:
    """A plan for the `top` best trials, each with the same `seeds` seeds. What was scored earlier is not trained again.

    Raises:
        NothingToExportError: no trial has finished.
    """
    chosen = best_trials(study, top)
    numbers = [evaluation_seed(study.spec.seed, number) for number in range(seeds)]
    missing = {}
    for one in chosen:
        scored = stored_scores(study, one.trial.number)
        missing[one.trial.number] = [seed for seed in numbers if not _is_judged(scored.get(seed), study)]
    return Plan(chosen, numbers, missing)


def _is_judged(score: dict[str, Any] | None, study: StoredStudy) -> bool:
    """Whether a seed has its score. Under `holdout` earlier versions scored a part of the test set: not comparable."""
    return score is not None and (study.spec.protocol == "article" or "plain" in score)


def evaluate_best(study: StoredStudy, options: WorkerOptions, planned: Plan) -> list[dict[str, Any]]:
    """Retrain what is missing; store and return the test scores.

    Under `holdout` the validation images choose the epoch, and the test set is scored once for each seed. Under
    `article` the test set chooses the epoch, as in the reference, so the score is too high.

    Returns:
        For each trial: `trial`, `protocol`, `params`, `macro_f1` (of the search) and `test` as in the export, over the
        planned seeds.

    Raises:
        DataError, DeviceError: this machine cannot train the study.
    """
    if planned.trainings:
        _train_missing(study, options, planned)
    return [
        {
            "trial": one.trial.number,
            "protocol": study.spec.protocol,
            "params": one.place.params,
            "macro_f1": one.scores.macro_f1,
            "search": score_of(one.place.value),
            "test": latest_test(study, one.trial.number, planned.seeds),
        }
        for one in planned.chosen
    ]


def _train_missing(study: StoredStudy, options: WorkerOptions, planned: Plan) -> None:
    from affinity_search.search import devices

    device = devices.configure(options.device, options.threads)
    # Read the training images first: if they are missing, the test set stays unopened.
    images = StudyImages(study, options.data_dir, say)
    trainer = StudyTrainer(device, study.spec, study.settled_precision, images.folder, seen=images)
    count = itertools.count(1)
    for one in planned.chosen:
        number, params = one.trial.number, one.place.params
        if seeds := planned.missing[number]:
            _evaluate(study, trainer, number, params, seeds, lambda: f"{next(count)}/{planned.trainings}")
    try:
        write_note(study)
    except Exception as error:  # the scores are stored already, and the note is worth less
        say(f"the dashboard's note on the study could not be written: {first_line(error)}")


def _evaluate(
    study: StoredStudy,
    trainer: StudyTrainer,
    trial: int,
    params: Params,
    seeds: list[int],
    number: Callable[[], str],
) -> None:
    record = record_opening(study, trial, seeds)
    trainer.open_test()
    scores: list[dict[str, Any]] = []
    for seed in seeds:
        scores.append(judge(study.spec, trainer, params, seed, f"{number()}: trial {trial}, seed {seed}"))
        record_scores(study, record, scores)  # after each seed: if this call is interrupted, the next one goes on here


def judge(spec: StudySpec, trainer: StudyTrainer, params: Params, seed: int, what: str) -> dict[str, Any]:
    """Train from the start, and score the test set with the weights of the best epoch. `what` names the run in lines.

    The test set must be open. Returns the scores as stored, with the `best_epoch`, counted from 1.
    """
    from affinity_search.search.training.results import best_epoch

    tell = _seldom(lambda score: say(f"{what}, {epoch_text(score, spec)}"))
    done: list[EpochScore] = []
    # As many centres as the search had room for: then a retraining rounds as the search did.
    for score in trainer.epochs(params, seed, max_centers=spec.max_centers):
        done.append(score)
        if best_epoch(done, spec.metric) is score:
            best = trainer.state()
        tell(score)
    trainer.go_back(best)
    tested = trainer.score_test() | {"best_epoch": best_epoch(done, spec.metric).number}
    reached = f"{spec.score.label} {tested[spec.metric]:.4f} on the test set ({spec.protocol})"
    say(f"{what}: {reached}, epoch {tested['best_epoch']}")
    return tested


def _seldom(tell: Callable[[EpochScore], None], every_s: float = 10.0) -> Callable[[EpochScore], None]:
    """A function that calls `tell` at most every `every_s`: only a long training shows its epochs."""
    told = [time.monotonic()]

    def perhaps(score: EpochScore) -> None:
        if time.monotonic() - told[0] >= every_s:
            told[0] = time.monotonic()
            tell(score)

    return perhaps
