"""Features of a trial: it is trained again, and the features of each epoch are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from affinity_search.search.worker.images import StudyImages
from affinity_search.search.worker.loop import say
from affinity_search.search.worker.setup import WorkerOptions
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.errors import NothingToExportError
from affinity_search.storage.results.export import best_trials
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.studies.model.parameters import Params

if TYPE_CHECKING:
    from affinity_search.search.training.networks.features import Features
    from affinity_search.search.training.results import EpochScore


@dataclass(frozen=True)
class Embedded:
    """A retrained trial: the features and the score of each epoch."""

    trial: int
    params: Params
    features: list[Features]
    scores: list[float]


def embed(
    study: StoredStudy,
    options: WorkerOptions,
    number: int,
    width: int | None,
    on_epoch: Callable[[EpochScore], None],
) -> Embedded:
    """Retrain a trial with its own seed; `width` puts a Dense layer of that width before the head.

    The features are of the images that score the epochs. So under `holdout` no test image is read.

    Raises:
        NothingToExportError: there is no such trial, or none has finished.
        DataError, DeviceError: this machine cannot train the study.
    """
    _, params, seed = described(study, number)
    from affinity_search.search import devices

    device = devices.configure(options.device, options.threads)
    images = StudyImages(study, options.data_dir, say, settles=False)
    trainer = StudyTrainer(device, study.spec, study.settled_precision, images.folder, embedding=width, seen=images)
    kept: list[Features] = []
    scores: list[float] = []
    for score in trainer.epochs(params, seed, max_centers=study.spec.max_centers):
        kept.append(trainer.features())
        scores.append(score.scores[study.spec.metric])
        on_epoch(score)
    return Embedded(number, params, kept, scores)


def chosen(study: StoredStudy, number: int | None) -> int:
    """The trial of that number; None: the best.

    Raises:
        NothingToExportError: there is no such trial, or none has finished.
    """
    if number is None:
        return best_trials(study)[0].trial.number
    described(study, number)
    return number


def described(study: StoredStudy, number: int) -> tuple[FrozenTrial, Params, int]:
    """A trial that has ended, its parameters and its seed. Raises NothingToExportError if there is none."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    trials = {trial.number: trial for trial in study.optuna.get_trials(deepcopy=False, states=ended)}
    seed = TrialFacts.of(trials[number]).seed if number in trials else None
    if seed is None:
        raise NothingToExportError(
            f"study {study.name!r} has no finished trial {number}; `affinity-search trials {study.name}` lists them, "
            "or leave --trial out for the best one"
        )
    return trials[number], trials[number].params, seed
