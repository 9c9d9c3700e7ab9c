"""What MLflow is told of a finished trial, as plain values."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from affinity_search.search.launch.tracking.targets import Finished
from affinity_search.search.view.pictures import History, history_of
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.errors import NothingToExportError
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.results.export import best_trials, export, to_plain
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.studies.metrics import score_of

PREFIX = "affinity_search"
KEY = f"{PREFIX}.key"
STUDY_FILE = "study.toml"
STATES = {PlaceState.COMPLETE: "complete", PlaceState.PRUNED: "pruned", PlaceState.SPENT: "failed"}
LONGEST = 4000  # letters of a tag; MLflow takes 5000


@dataclass(frozen=True)
class Point:
    """A value of a metric. Epochs count from 1; `at` is in seconds since 1970."""

    metric: str
    value: float
    epoch: int
    at: float


@dataclass(frozen=True)
class Run:
    """One run of MLflow."""

    key: str
    name: str
    began_at: float
    ended_at: float
    failed: bool
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[Point, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)  # artifacts by name


def trial_run(one: Finished, key: str, files: StudyFiles, *, drawn: bool) -> Run:
    """Of a finished trial, with its pictures if it is `drawn`. What another machine's files hold is left out."""
    study, place, trial = one.study, one.place, one.trial
    facts = TrialFacts.of(trial) if trial else None
    history = history_of(files, trial) if trial else None
    ended = place.finished_at or 0.0
    began = place.claimed_at or ended
    params = {name: repr(value) for name, value in ((trial and trial.params) or place.params or {}).items()}
    params |= {"place": str(place.number)}
    if facts and facts.seed is not None:
        params["seed"] = str(facts.seed)
    if place.draw is not None:
        params |= {"draw": str(place.draw), "source_trial": str(place.source)}
    kept = {STUDY_FILE: study.spec.to_toml().encode()}
    if history:
        kept["epochs.json"] = json.dumps(history.to_dict(), indent=1).encode()
        kept |= history.draw() if drawn else {}
    name = f"trial {place.trial}" if place.trial is not None else f"place {place.number}"
    return Run(
        key,
        name,
        began,
        ended,
        place.state == PlaceState.SPENT,
        params,
        _tags(one, facts),
        tuple(point for point in _points(one, facts, history) if math.isfinite(point.value)),
        kept,
    )


def _tags(one: Finished, facts: TrialFacts | None) -> dict[str, str]:
    study, place = one.study, one.place
    told: dict[str, Any] = {
        "state": STATES[place.state],
        "study": study.name,
        "kind": "final run" if study.search else "trial",
        "trial": place.trial,
        "attempt": place.attempt,
        "head": study.spec.network.head,
        "data": study.spec.data.set,
        "protocol": study.spec.protocol,
        "metric": study.spec.metric,
        "fingerprint": study.fingerprint,
        "worker": place.worker,
        "device": place.device,
        "contestant": study.contestant,
        "level": study.level,
        "reason": place.reason if place.state == PlaceState.SPENT else None,
    }
    versions = facts.versions if facts and facts.versions else {}
    told |= {f"version.{package}": version for package, version in versions.items()}
    return {f"{PREFIX}.{name}": str(value)[:LONGEST] for name, value in told.items() if value not in (None, "", "{}")}


def _points(one: Finished, facts: TrialFacts | None, history: History | None) -> list[Point]:
    """Each epoch's scores, then what counts: `best_…` is that of the best epoch so far.

    Optuna's tables have the best value of the study's metric after every epoch. All else is in the files.
    """
    place, metric, scores = one.place, one.study.spec.metric, facts.scores if facts else None
    ended = place.finished_at or 0.0
    best = dict(sorted(one.trial.intermediate_values.items())) if one.trial else {}
    at = _ends(history, {step + 1 for step in best}, place.claimed_at or ended, ended)
    points = [Point(f"best_{metric}", score_of(value), step + 1, at[step + 1]) for step, value in best.items()]
    for epoch in history.epochs if history else ():
        told = {"loss": epoch.loss, "epoch_s": epoch.duration_s}
        told |= {"macro_f1": epoch.scores.macro_f1, "accuracy": epoch.scores.accuracy} | dict(epoch.scores.more)
        points += [Point(key, value, epoch.number, at[epoch.number]) for key, value in told.items()]
    if scores:
        last = max(scores.epochs, 1)
        told = {f"best_{key}": value for key, value in scores.metrics.items() if key != metric or not best}
        told |= {"best_epoch": scores.best_epoch, "epochs": scores.epochs, "duration_s": scores.duration_s}
        points += [Point(key, float(value), last, ended) for key, value in told.items()]
    if place.value is not None:
        points.append(Point("score", score_of(place.value), max(at, default=1), ended))
    return points


def _ends(history: History | None, epochs: set[int], began: float, ended: float) -> dict[int, float]:
    """When each epoch ended: evenly spread, as nothing keeps it."""
    numbers = epochs | {epoch.number for epoch in history.epochs} if history else epochs
    most = max(numbers, default=1)
    return {number: began + (ended - began) * number / most for number in numbers}


def study_run(study: StoredStudy, key: str, used: int, at: float, files: StudyFiles) -> Run:
    """The study's own: its file, its export, and the pictures of its best trial."""
    kept = {STUDY_FILE: study.spec.to_toml().encode()}
    points: tuple[Point, ...] = ()
    tags = {f"{PREFIX}.{name}": str(value) for name, value in _about(study, used).items()}
    with contextlib.suppress(NothingToExportError):  # of final runs there is no best
        kept["export.json"] = json.dumps(to_plain(export(study)), indent=2).encode()
        (best,) = best_trials(study)
        tags[f"{PREFIX}.best_trial"] = str(best.trial.number)
        points = (Point("score", score_of(best.place.value), used, at),)
        history = history_of(files, best.trial)
        kept |= history.draw() if history else {}
    return Run(key, f"study {study.name}", at, at, False, {}, tags, points, kept)


def _about(study: StoredStudy, used: int) -> dict[str, Any]:
    return {
        "study": study.name,
        "kind": "study",
        "trials": used,
        "fingerprint": study.fingerprint,
        "metric": study.spec.metric,
        "head": study.spec.network.head,
    }
