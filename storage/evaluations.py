"""Scores on the test set: when it was opened, by whom, with which seeds, and what came of it."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select, update

from storage.study import StoredStudy
from storage.tables import evaluations


def opened_by() -> str:
    """user@host, as recorded with every opening of the test set."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def record_opening(study: StoredStudy, trial: int, seeds: Sequence[int]) -> int:
    """Record, before the test set is read, that it will be; returns the record's id for `record_scores`."""
    row = {"token": study.token, "trial": trial, "opened_by": opened_by(), "seeds": json.dumps(list(seeds))}
    with study.backend.engine.begin() as connection:
        statement = insert(evaluations).values(**row, opened_at=study.backend.now()).returning(evaluations.c.id)
        return int(connection.execute(statement).scalar_one())


def record_scores(study: StoredStudy, record: int, scores: Sequence[dict[str, Any]]) -> None:
    """Store the score objects that are there so far, one a seed, in the order of the record's seeds."""
    with study.backend.engine.begin() as connection:
        statement = update(evaluations).where(evaluations.c.id == record).values(scores=json.dumps(list(scores)))
        connection.execute(statement)


def latest_test(study: StoredStudy, trial: int) -> dict[str, Any] | None:
    """A trial's mean, least and greatest macro F1 on the test set; None without an evaluation.

    The evaluation with most seeds counts, and of several the last.
    """
    scored = (evaluations.c.token == study.token, evaluations.c.trial == trial, evaluations.c.scores.is_not(None))
    query = select(evaluations).where(*scored).order_by(evaluations.c.id)
    with study.backend.engine.connect() as connection:
        rows = [row._asdict() for row in connection.execute(query)]
    if not rows:
        return None
    return summarise(max(rows, key=lambda row: (len(json.loads(row["scores"])), row["id"])), study.spec.protocol)


def summarise(row: dict[str, Any], protocol: str) -> dict[str, Any]:
    """The export's `test` object from a row of the table."""
    scores = json.loads(row["scores"])
    macro = [score["macro_f1"] for score in scores]
    return {
        "protocol": protocol,
        "macro_f1_mean": sum(macro) / len(macro),
        "macro_f1_least": min(macro),
        "macro_f1_greatest": max(macro),
        "macro_f1": macro,
        "micro_f1": [score["micro_f1"] for score in scores],
        "per_class_f1": [score["per_class_f1"] for score in scores],
        "epochs": [_best_epoch(score) for score in scores],
        "seeds": json.loads(row["seeds"])[: len(scores)],
        "opened_at": row["opened_at"],
        "opened_by": row["opened_by"],
    }


def _best_epoch(score: dict[str, Any]) -> int:
    """From 1; 0.1.0 stored it from 0, under another name."""
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
