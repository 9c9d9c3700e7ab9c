"""Stops a study from any machine, by a mark in its row. Every claim and every recovery thread reads the mark."""

from __future__ import annotations

from sqlalchemy import Connection, update

from affinity_search.storage.database import tables
from affinity_search.storage.database.tables import Stop
from affinity_search.storage.study import StoredStudy, log


def stop(study: StoredStudy, how: Stop, by: str) -> StoredStudy:
    """From now on nobody claims a place of the study. Its workers learn of it at their next look.

    `by` goes into the history.
    """
    return _mark(study, how, "stopped", f"{_HOW[how]}, by {by}")


def resume(study: StoredStudy, by: str) -> StoredStudy:
    """Remove the mark: places may be claimed again."""
    return _mark(study, None, "resumed", f"by {by}")


_HOW = {Stop.DRAIN: "no new trials", Stop.NOW: "no new trials, running ones given back"}


def _mark(study: StoredStudy, stopped: Stop | None, kind: str, text: str) -> StoredStudy:
    table = tables.studies
    changed = update(table).where(table.c.token == study.token, table.c.stopped.is_distinct_from(stopped))

    def write(connection: Connection) -> None:
        if connection.execute(changed.values(stopped=stopped)).rowcount:
            log(connection, study.backend, study.token, kind, text)

    study.backend.transaction(write)
    return study.refreshed()
