"""Scores on the test set: who opened it, when, with which seeds, and the scores."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select, update

from affinity_search.storage.database.tables import evaluations
from affinity_search.storage.study import StoredStudy
from affinity_search.studies.metrics import METRICS


def opened_by() -> str:
    """user@host. It is recorded with every opening of the test set."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def record_opening(study: StoredStudy, trial: int, seeds: Sequence[int]) -> int:
    """Record that the test set will be read, before it is. Returns the record's id for `record_scores`."""
    row = {"token": study.token, "trial": trial, "opened_by": opened_by(), "seeds": json.dumps(list(seeds))}
    with study.backend.engine.begin() as connection:
        statement = insert(evaluations).values(**row, opened_at=study.backend.now()).returning(evaluations.c.id)
        return int(connection.execute(statement).scalar_one())


def record_scores(study: StoredStudy, record: int, scores: Sequence[dict[str, Any]]) -> None:
    """Store the scores so far: one object for each seed, in the order of the record's seeds."""
    with study.backend.engine.begin() as connection:
        statement = update(evaluations).where(evaluations.c.id == record).values(scores=json.dumps(list(scores)))
        connection.execute(statement)


def stored_scores(study: StoredStudy, trial: int) -> dict[int, dict[str, Any]]:
    """A trial's scores of all evaluations so far, by seed. None of these seeds needs training again."""
    found: dict[int, dict[str, Any]] = {}
    for row in _scored(study, trial):
        found |= dict(zip(json.loads(row["seeds"]), json.loads(row["scores"]), strict=False))  # it may be unfinished
    return found


def latest_test(study: StoredStudy, trial: int, seeds: Sequence[int] | None = None) -> dict[str, Any] | None:
    """A trial's mean, least and greatest macro F1 on the test set; None without an evaluation.

    With `seeds`: over those of them that have a score. Without: over all that have one.
    """
    scores = stored_scores(study, trial)
    chosen = {seed: scores[seed] for seed in (scores if seeds is None else seeds) if seed in scores}
    if not chosen:
        return None
    return summarise(chosen, study.spec.protocol) | {
        key: _scored(study, trial)[-1][key] for key in ("opened_at", "opened_by")
    }


def _scored(study: StoredStudy, trial: int) -> list[dict[str, Any]]:
    """The evaluations of the trial that have scores, oldest first."""
    scored = (evaluations.c.token == study.token, evaluations.c.trial == trial, evaluations.c.scores.is_not(None))
    query = select(evaluations).where(*scored).order_by(evaluations.c.id)
    with study.backend.engine.connect() as connection:
        return [row._asdict() for row in connection.execute(query)]


def tested(study: StoredStudy) -> dict[int, dict[str, Any]]:
    """`latest_test` of every trial that has one, best mean first."""
    found = {trial: latest_test(study, trial) for trial in {opening["trial"] for opening in openings(study)}}
    scored = [(trial, test) for trial, test in found.items() if test is not None]
    return dict(sorted(scored, key=lambda one: -one[1]["macro_f1_mean"]))


def summarise(scores: dict[int, dict[str, Any]], protocol: str) -> dict[str, Any]:
    """The export's `test` object, without who opened the test set and when."""
    macro = [score["macro_f1"] for score in scores.values()]
    return {
        "protocol": protocol,
        "macro_f1_mean": sum(macro) / len(macro),
        "macro_f1_least": min(macro),
        "macro_f1_greatest": max(macro),
        "macro_f1": macro,
        "micro_f1": [score["micro_f1"] for score in scores.values()],
        "metrics": {
            key: [score[key] for score in scores.values()]
            for key in METRICS
            if all(key in score for score in scores.values())
        },
        "per_class_f1": [score["per_class_f1"] for score in scores.values()],
        "epochs": [_best_epoch(score) for score in scores.values()],
        "seeds": list(scores),
    }


def _best_epoch(score: dict[str, Any]) -> int:
    """Counted from 1. Version 0.1.0 stored it under another name, counted from 0."""
    return int(score["best_epoch"] if "best_epoch" in score else score["epoch"] + 1)


def openings(study: StoredStudy) -> list[dict[str, Any]]:
    """Every opening of the test set, oldest first: `trial`, `opened_at`, `opened_by`, `finished`."""
    query = select(evaluations).where(evaluations.c.token == study.token).order_by(evaluations.c.id)
    with study.backend.engine.connect() as connection:
        rows = [row._asdict() for row in connection.execute(query)]
    return [
        {key: row[key] for key in ("trial", "opened_at", "opened_by")} | {"finished": _finished(row)} for row in rows
    ]


def _finished(row: dict[str, Any]) -> bool:
    return row["scores"] is not None and len(json.loads(row["scores"])) == len(json.loads(row["seeds"]))
