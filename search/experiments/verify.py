"""Trains a recorded run again, and judges whether what comes out is what was recorded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from affinity_search.search.training.checkpoints import TrainingState
from affinity_search.search.training.metrics import METRICS
from affinity_search.search.training.results import EpochScore, RunningValue, best_epoch, overall
from affinity_search.search.worker.images import StudyImages
from affinity_search.search.worker.loop import say
from affinity_search.search.worker.setup import WorkerOptions
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.database.runtime import user_at_host
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.errors import NothingToExportError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.place import Place
from affinity_search.storage.results.final_runs import final_study
from affinity_search.storage.results.verified import VERIFIED
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts, told_scores
from affinity_search.storage.trials.seeds import draw_seed, trial_seed

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from affinity_search.search.devices import Device

Verdict = Literal["equal", "within noise", "different"]
WITH_SCORES = (PlaceState.COMPLETE, PlaceState.PRUNED)


@dataclass(frozen=True)
class Run:
    """One recorded training: of a search, or a final run of a sibling study."""

    study: StoredStudy
    place: Place
    trial: FrozenTrial

    @property
    def seed(self) -> int:
        """As it follows from the study's seed."""
        seed = self.study.spec.seed
        return trial_seed(seed, self.place.number) if self.place.draw is None else draw_seed(seed, self.place.draw)

    @property
    def label(self) -> str:
        """What people call it."""
        if self.place.draw is None:
            return f"trial {self.trial.number} (place {self.place.number})"
        return f"final run of trial {self.place.source}, draw {self.place.draw}"


@dataclass(frozen=True)
class Verified:
    """What training a run again showed. Scores are fractions in [0, 1]."""

    run: str
    metric: str
    verdict: Verdict
    recorded: float  # the run's score in the study's metric
    again: float | None  # None: it could not be trained
    greatest: float  # difference of any score of any epoch between the record and the new training
    noise: float | None  # the same between two new trainings; None where one was enough
    causes: tuple[str, ...]  # what differs from the record, where the scores do

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def runs_of(study: StoredStudy, trial: int | None, place: int | None, *, final: bool) -> list[Run]:
    """The recorded runs that are meant: one of a search, or with `final` all final runs of the trial.

    Without a number it is the best trial. Raises NothingToExportError if there is no such run with a score.
    """
    from affinity_search.storage.results.export import best_trials

    if trial is None and place is None:
        trial = best_trials(study)[0].trial.number
    of = final_study(study) if final else study
    trials = {} if of is None else {each.number: each for each in of.optuna.get_trials(deepcopy=False)}
    rows = [] if of is None else [row for row in Places.of(of).rows() if row.state in WITH_SCORES]
    chosen = [row for row in rows if _is_meant(row, trial, place, final=final) and row.trial in trials]
    if not chosen:
        what = ("final run of " if final else "") + (f"place {place}" if place is not None else f"trial {trial}")
        raise NothingToExportError(
            f"study {study.name!r} has no {what} with a score; `affinity-search trials {study.name}` lists them"
        )
    assert of is not None
    return [Run(of, row, trials[row.trial]) for row in chosen if row.trial is not None]


def _is_meant(row: Place, trial: int | None, place: int | None, *, final: bool) -> bool:
    if place is not None:
        return row.number == place
    return (row.source if final else row.trial) == trial


def verify(run: Run, options: WorkerOptions) -> Verified:
    """Train the run again on this machine, twice if the first time differs, and judge.

    Raises:
        DataError: the images are not here. Other images than the run's are a difference, not an error.
        DeviceError: this machine cannot train the study.
    """
    from affinity_search.search import devices
    from affinity_search.search.training.errors import DataError, MissingDataError

    device = devices.configure(options.device, options.threads)
    recorded = _recorded(run)
    metric = run.study.spec.metric
    try:
        trainer = _trainer(run, device, options)
        again = _trained(run, trainer)
    except MissingDataError:
        raise
    except DataError as error:
        return Verified(run.label, metric, "different", recorded[metric], None, math.nan, None, (f"data: {error}",))
    greatest, noise = _greatest(recorded, again), None
    causes: tuple[str, ...] = ()
    verdict: Verdict = "equal"
    if greatest > 0:
        noise = _greatest(again, _trained(run, trainer))
        verdict = "within noise" if greatest <= 2 * noise else "different"
        causes = tuple(_causes(run, device)) or (NOTHING,)
    return Verified(run.label, metric, verdict, recorded[metric], again[metric], greatest, noise, causes)


NOTHING = "nothing else that is recorded differs: the record was changed, or the code computes otherwise"


def keep(run: Run, found: Verified) -> None:
    """Write the verdict into the study's history, where the export finds it."""
    text = f"{found.run}: {found.verdict}, by {user_at_host()}"
    run.study.record(VERIFIED, text)


def _trainer(run: Run, device: Device, options: WorkerOptions) -> StudyTrainer:
    study = run.study
    images = StudyImages(study, options.data_dir, say, settles=False)
    trainer = StudyTrainer(device, study.spec, study.settled_precision, images.folder, seen=images)
    if run.place.draw is not None:
        study.record("opened", f"the test images, by {user_at_host()}, to verify a final run")
        trainer.open_test()
        trainer.use_draw(run.place.draw)
    return trainer


def _recorded(run: Run) -> dict[str, float]:
    told = told_scores(run.trial)
    if told is None:
        raise NothingToExportError(f"{run.label} of study {run.study.name!r} has no scores")
    values = {f"epoch {step + 1}": value for step, value in run.trial.intermediate_values.items()}
    return dict(_numbers(told)) | values


def _trained(run: Run, trainer: StudyTrainer) -> dict[str, float]:
    """The same numbers of a new training of as many epochs."""
    spec, found = run.study.spec, {}
    epochs = len(run.trial.intermediate_values)
    is_search = run.place.draw is None
    value, best = RunningValue(spec.metric, spec.training.epochs), TrainingState((), {})
    scores: list[EpochScore] = []
    params = run.place.params or {}
    for score in trainer.epochs(params, run.seed, max_centers=spec.max_centers, runs=spec.data.runs):
        scores.append(score)
        found[f"epoch {score.number}"] = value.add(score)
        if not is_search and best_epoch(scores, spec.metric) is score:
            best = trainer.state()
        if score.number >= epochs:
            break
    if is_search:
        return dict(_numbers(overall(scores, spec.metric).scores.to_dict())) | found
    trainer.go_back(best)
    return dict(_numbers(trainer.score_test())) | found


def _numbers(scores: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The scores that both a record and a new training have: the metrics, and F1 of each class."""
    yield from ((key, float(scores[key])) for key in METRICS if key in scores)
    yield from ((f"F1 of class {label}", float(f1)) for label, f1 in enumerate(scores.get("per_class_f1", ())))


def _greatest(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The greatest difference; a score that only one of them has differs by 1."""
    keys = {*one, *other}
    return max((abs(one[key] - other[key]) if key in one and key in other else 1.0 for key in keys), default=0.0)


def _causes(run: Run, device: Device) -> Iterator[str]:
    """What the record names that is otherwise here."""
    from affinity_search.search import devices

    facts, here = TrialFacts.of(run.trial), devices.versions()
    for package, version in (facts.versions or {}).items():
        if here.get(package) != version:
            yield f"versions: {package} {version} then, {here.get(package, 'none')} now"
    if facts.device is not None and facts.device != device.describe():
        yield f"device: {facts.device} then, {device.describe()} now"
    if facts.seed is not None and facts.seed != run.seed:
        yield f"settings: the trial says seed {facts.seed}, its place has {run.seed}"
    params = run.place.params or {}
    if {key: float(value) for key, value in run.trial.params.items()} != {k: float(v) for k, v in params.items()}:
        yield f"settings: the trial says {run.trial.params}, its place has {params}"
