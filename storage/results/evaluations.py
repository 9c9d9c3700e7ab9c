"""Scores on the test set: who opened it, when, on which draws, and the scores.

Final runs have them. Earlier versions trained with other seeds on the search's own images, and kept their scores in
a table of their own; these count where a trial has no final run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from affinity_search.storage.database.tables import evaluations
from affinity_search.storage.results.final_runs import FinalRun, FinalRuns
from affinity_search.storage.study import StoredStudy
from affinity_search.studies.metrics import METRICS


def latest_test(
    study: StoredStudy, trial: int, draws: int | None = None, runs: FinalRuns | None = None
) -> dict[str, Any] | None:
    """The export's `test` object of a trial; None without a score. With `draws`: over draws 1 … `draws` alone.

    `runs` are the study's final runs, where they were read before.
    """
    mine = [run for run in (runs or FinalRuns.of(study)).of_trial(trial) if run.scores is not None]
    mine = [run for run in mine if draws is None or run.draw <= draws]
    if not mine:
        return _evaluated(study, trial)
    scores = [run.scores for run in mine if run.scores is not None]
    return {
        **summarise(scores, study.spec.protocol),
        "draws": [run.draw for run in mine],
        "seeds": [run.seed for run in mine],
        "opened_at": _opened_at(mine),
        "opened_by": mine[0].opened_by or "unknown",
    }


def _opened_at(runs: Sequence[FinalRun]) -> float:
    return min(run.place.claimed_at or 0.0 for run in runs)


def _evaluated(study: StoredStudy, trial: int) -> dict[str, Any] | None:
    """As `latest_test`, by an earlier version."""
    scored = (evaluations.c.token == study.token, evaluations.c.trial == trial, evaluations.c.scores.is_not(None))
    query = select(evaluations).where(*scored).order_by(evaluations.c.id)
    with study.backend.engine.connect() as connection:
        rows = [row._asdict() for row in connection.execute(query)]
    scores: dict[int, dict[str, Any]] = {}
    for row in rows:
        scores |= dict(zip(json.loads(row["seeds"]), json.loads(row["scores"]), strict=False))  # it may be unfinished
    if not scores:
        return None
    found = summarise(list(scores.values()), study.spec.protocol) | {"draws": [], "seeds": list(scores)}
    return found | {key: rows[-1][key] for key in ("opened_at", "opened_by")}


def tested(study: StoredStudy) -> dict[int, dict[str, Any]]:
    """`latest_test` of every trial that has one, best mean first."""
    runs = FinalRuns.of(study)
    trials = {opening["trial"] for opening in openings(study, runs)}
    found = {trial: latest_test(study, trial, runs=runs) for trial in trials}
    scored = [(trial, test) for trial, test in found.items() if test is not None]
    return dict(sorted(scored, key=lambda one: -one[1]["macro_f1_mean"]))


def summarise(scores: Sequence[Mapping[str, Any]], protocol: str) -> dict[str, Any]:
    """The export's `test` object, without the runs themselves and who opened the test set."""
    macro = [score["macro_f1"] for score in scores]
    return {
        "protocol": protocol,
        "macro_f1_mean": sum(macro) / len(macro),
        "macro_f1_least": min(macro),
        "macro_f1_greatest": max(macro),
        "macro_f1": macro,
        "micro_f1": [score["micro_f1"] for score in scores],
        "metrics": {key: [score[key] for score in scores] for key in METRICS if all(key in score for score in scores)},
        "per_class_f1": [score["per_class_f1"] for score in scores],
        "epochs": [_best_epoch(score) for score in scores],
    }


def _best_epoch(score: Mapping[str, Any]) -> int:
    """Counted from 1. Version 0.1.0 stored it under another name, counted from 0."""
    return int(score["best_epoch"] if "best_epoch" in score else score["epoch"] + 1)


def openings(study: StoredStudy, runs: FinalRuns | None = None) -> list[dict[str, Any]]:
    """Every opening of the test set, oldest first: `trial`, `opened_at`, `opened_by`, `finished`.

    All final runs of a trial are one opening.
    """
    query = select(evaluations).where(evaluations.c.token == study.token).order_by(evaluations.c.id)
    with study.backend.engine.connect() as connection:
        rows = [row._asdict() for row in connection.execute(query)]
    earlier = [
        {key: row[key] for key in ("trial", "opened_at", "opened_by")} | {"finished": _finished(row)} for row in rows
    ]
    runs = runs or FinalRuns.of(study)
    opened = [run for run in runs.runs if run.opened_by is not None]
    final: list[dict[str, Any]] = []
    for trial in dict.fromkeys(run.trial for run in opened):
        mine = [run for run in opened if run.trial == trial]
        finished = all(run.place.is_used for run in runs.of_trial(trial))
        known = {"trial": trial, "opened_at": _opened_at(mine), "opened_by": mine[0].opened_by}
        final.append(known | {"finished": finished})
    return earlier + sorted(final, key=lambda one: one["opened_at"])


def _finished(row: dict[str, Any]) -> bool:
    return row["scores"] is not None and len(json.loads(row["scores"])) == len(json.loads(row["seeds"]))
