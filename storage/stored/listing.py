"""Every trial of a study as plain rows, for tables and files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from affinity_search.storage.database.tables import Cause
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.place import Place
from affinity_search.storage.study import StoredStudy, attributes

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.RUNNING: "running"}


def trial_rows(study: StoredStudy) -> list[dict[str, Any]]:
    """One row for every attempt at a place, in the order of the trials' numbers; `params` is a dictionary.

    What is unknown is None. Epochs are counted from 1. Trials that another program put into the study are left out.
    """
    places = {place.number: place for place in Places.of(study).rows()}
    trials = study.optuna.get_trials(deepcopy=False)
    rows = [(trial, attributes(trial)) for trial in trials]
    return [_row(trial, attrs, places.get(attrs["place"])) for trial, attrs in rows if "place" in attrs]


def _row(trial: FrozenTrial, attrs: Mapping[str, Any], place: Place | None) -> dict[str, Any]:
    scores = trial.intermediate_values
    best = min(scores, key=lambda step: (scores[step], step)) if scores else None
    failed = trial.state == TrialState.FAIL
    return {
        "trial": trial.number,
        "place": attrs["place"],
        "attempt": attrs.get("attempt"),
        "state": _state(trial, attrs),
        "macro_f1": None if best is None or failed else 1.0 - scores[best],
        "params": dict(trial.params) or (place.params if place else None) or {},
        "best_epoch": None if best is None or failed else attrs.get("best_epoch", best + 1),
        "epochs": attrs.get("epochs", len(scores)),
        "seconds": _seconds(trial, attrs),
        "seed": attrs.get("seed"),
        "worker": attrs.get("worker"),
        "device": attrs.get("device"),
        "reason": attrs.get("reason") if failed else None,
    }


def _state(trial: FrozenTrial, attrs: Mapping[str, Any]) -> str:
    if attrs.get("cause") == Cause.PREEMPTED:
        return "given back"
    return STATES.get(trial.state, "failed")


def _seconds(trial: FrozenTrial, attrs: Mapping[str, Any]) -> float | None:
    """The training's own time; of a trial without scores, from its beginning to its end."""
    if "duration_s" in attrs:
        return float(attrs["duration_s"])
    return trial.duration.total_seconds() if trial.duration else None
