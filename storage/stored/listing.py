"""Every trial of a study as plain rows, for tables and files."""

from __future__ import annotations

from typing import Any

from optuna.trial import FrozenTrial, TrialState

from affinity_search.storage.database.tables import Cause
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.place import Place
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.studies.metrics import DEFAULT, score_of

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.RUNNING: "running"}


def trial_rows(study: StoredStudy) -> list[dict[str, Any]]:
    """One row for every attempt at a place, in the order of the trials' numbers; `params` is a dictionary.

    Unknown values are None. Epochs count from 1. Trials that another program added to the study are left out.
    """
    places = {place.number: place for place in Places.of(study).rows()}
    trials = study.optuna.get_trials(deepcopy=False)
    told, metric = [(trial, TrialFacts.of(trial)) for trial in trials], study.spec.metric
    return [_row(trial, facts, places.get(facts.place), metric) for trial, facts in told if facts.place is not None]


def detailed_rows(study: StoredStudy) -> list[dict[str, Any]]:
    """As `trial_rows`, with the study's name, all `metrics` of the best epoch, and the times `began` and `ended`.

    `curve` has the best value of the study's metric after each epoch.
    """
    trials = {trial.number: trial for trial in study.optuna.get_trials(deepcopy=False)}
    rows = []
    for row in trial_rows(study):
        trial = trials.get(row["trial"])
        if trial is not None:  # it began since
            rows.append({"study": study.name, **row, **_details(trial)})
    return rows


def _details(trial: FrozenTrial) -> dict[str, Any]:
    scores = TrialFacts.of(trial).scores
    return {
        "metrics": dict(scores.metrics) if scores else {},
        "began": trial.datetime_start,
        "ended": trial.datetime_complete,
        "curve": [score_of(value) for _, value in sorted(trial.intermediate_values.items())],
    }


def _row(trial: FrozenTrial, facts: TrialFacts, place: Place | None, metric: str) -> dict[str, Any]:
    scores = trial.intermediate_values
    best = min(scores, key=lambda step: (scores[step], step)) if scores else None
    failed = trial.state == TrialState.FAIL
    best_epoch = facts.scores.best_epoch if facts.scores else None if best is None else best + 1
    return {
        "trial": trial.number,
        "place": facts.place,
        "attempt": facts.attempt,
        "state": _state(trial, facts),
        "macro_f1": None if best is None or failed else _macro_f1(scores[best], facts, metric),
        "params": dict(trial.params) or (place.params if place else None) or {},
        "best_epoch": None if best is None or failed else best_epoch,
        "epochs": facts.scores.epochs if facts.scores else len(scores),
        "seconds": _seconds(trial, facts),
        "seed": facts.seed,
        "worker": facts.worker,
        "device": facts.device,
        "reason": facts.reason if failed else None,
    }


def _macro_f1(value: float, facts: TrialFacts, metric: str) -> float | None:
    """Macro F1 of the best epoch. If the study has another metric, it is known only after the trial's end."""
    if facts.scores:
        return facts.scores.macro_f1
    return score_of(value) if metric == DEFAULT else None


def _state(trial: FrozenTrial, facts: TrialFacts) -> str:
    if facts.cause == Cause.PREEMPTED:
        return "given back"
    return STATES.get(trial.state, "failed")


def _seconds(trial: FrozenTrial, facts: TrialFacts) -> float | None:
    """The time of the training itself. For a trial without scores: from its beginning to its end."""
    if facts.duration_s is not None:
        return facts.duration_s
    return trial.duration.total_seconds() if trial.duration else None
