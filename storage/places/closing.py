"""Ends a search that finds nothing better any more: closes its free places, and opens them again when somebody asks.

Whether it is flat follows from the places' rows alone. Whoever ends a place looks, and so do launchers and recovery
threads: a worker that dies between its place's end and the look leaves nothing open for long.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection, Select, func, select, update

from affinity_search.storage.database import tables
from affinity_search.storage.database.tables import SCORED, USED, PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import StoredStudy, log
from affinity_search.studies.model.spec import StopSpec, StudySpec

REOPENED, RAISED = "reopened", "raised"  # kinds of events, after which the patience begins anew
ROUNDING = 1e-9  # a gain of just `min_gain` is none, however floats are rounded


def is_flat(values: Sequence[float], rule: StopSpec, since: int = 0) -> bool:
    """Whether the last `patience` values have improved the best one by no more than `min_gain`.

    `values` are 1 - metric, in the order of the trials' ends. The first `since` of them ended before somebody asked for
    more places: they count for the best before, but not for the patience.
    """
    enough = len(values) - since >= rule.patience
    return enough and _is_flat_after(list(accumulate(values, min)), len(values), rule)


def flat_after(values: Sequence[float], rule: StopSpec) -> int | None:
    """After how many of the values the rule would have ended the search; None if it would not have."""
    best = list(accumulate(values, min))
    numbers = range(rule.patience + 1, len(values) + 1)
    return next((number for number in numbers if _is_flat_after(best, number, rule)), None)


def _is_flat_after(best: Sequence[float], number: int, rule: StopSpec) -> bool:
    """`best` is the best value after each trial."""
    before = number - rule.patience
    return before > 0 and best[before - 1] - best[number - 1] <= rule.min_gain + ROUNDING


@dataclass(frozen=True)
class Closing:
    """What was closed in a study, the last time if there were several."""

    places: int
    of: int  # all places of the study, closed or not
    at: float  # by the database's clock
    reason: str

    def text(self, name: str) -> str:
        """What happened, and the command that goes on with the study of that name."""
        command = f"affinity-search launch {shlex.quote(name)} --trials {self.of}"
        return f"closed {self.places} of {self.of} places: {self.reason}; to go on: {command}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return vars(self)


@dataclass(frozen=True)
class Hindsight:
    """Where a rule would have ended a search that has none."""

    rule: StopSpec
    after: int  # trials
    of: int  # the study's places
    gain: float  # by which the best became better since, in the metric

    @property
    def text(self) -> str:
        """In one line."""
        since = f"+{100 * self.gain:.1f} points" if self.gain > 0 else "no better"
        return (
            f"[stop] with {self.rule.text} would have ended this search after {self.after} of {self.of} trials: "
            f"{self.of - self.after} trainings less; the best since then: {since}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"after": self.after, "of": self.of, "gain": self.gain} | self.rule.model_dump()


def close_if_flat(study: StoredStudy) -> str | None:
    """Close the free places of a flat search. Held ones run to their end. Returns a line if this call closed any.

    May be called at any time, by several processes at once: one of them closes.
    """
    rule = _rule_of(study, study.spec)
    if rule is None or not study.backend.transaction(lambda connection: _is_due(connection, study, rule)):
        return None
    closing = study.backend.transaction(lambda connection: _close(connection, study))
    return closing.text(study.name) if closing else None


def _rule_of(study: StoredStudy, spec: StudySpec) -> StopSpec | None:
    """None for final runs, and in a comparison, where every search gets the same number of places."""
    return spec.stop if study.search is None and study.comparison is None else None


def _close(connection: Connection, study: StoredStudy) -> Closing | None:
    table, studies = tables.places, tables.studies
    # A write first: until its end nobody else closes or opens places here, or changes the rule.
    locked = update(studies).where(studies.c.token == study.token).values(created_at=studies.c.created_at)
    definition = connection.execute(locked.returning(studies.c.definition)).scalar_one_or_none()
    spec = StudySpec.from_dict(json.loads(definition)) if definition else None
    rule = _rule_of(study, spec) if spec else None
    if spec is None or rule is None or not _is_due(connection, study, rule):
        return None
    trials = "trial" if rule.patience == 1 else f"{rule.patience} trials"
    reason = f"no gain of more than {rule.min_gain:g} of {spec.score.label} in the last {trials}"
    free = table.c.token == study.token, table.c.state == PlaceState.FREE
    ended = {"state": PlaceState.CLOSED, "finished_at": study.backend.now(), "reason": reason, "cause": None}
    count = connection.execute(update(table).where(*free).values(**ended)).rowcount
    if not count:
        return None
    log(connection, study.backend, study.token, "closed", f"{count} of {spec.trials} places: {reason}")
    return Closing(count, spec.trials, float(connection.execute(select(study.backend.now())).scalar_one()), reason)


def _is_due(connection: Connection, study: StoredStudy, rule: StopSpec) -> bool:
    """Whether there are free places, and the search is flat."""
    table, events = tables.places, tables.events
    free = select(table.c.number).where(table.c.token == study.token, table.c.state == PlaceState.FREE).limit(1)
    if connection.execute(free).first() is None:
        return False
    asked = select(func.max(events.c.at)).where(events.c.token == study.token, events.c.kind.in_((REOPENED, RAISED)))
    since = connection.execute(asked).scalar_one() or 0.0
    rows = connection.execute(_ended(study).where(table.c.state.in_(SCORED), table.c.value.is_not(None))).all()
    return is_flat([row.value for row in rows], rule, sum((row.finished_at or 0.0) <= since for row in rows))


def _ended(study: StoredStudy) -> Select[Any]:
    """The used places in the order of their ends."""
    table = tables.places
    query = select(table.c.state, table.c.value, table.c.finished_at)
    used = query.where(table.c.token == study.token, table.c.state.in_(USED))
    return used.order_by(table.c.finished_at, table.c.number)


def reopen(connection: Connection, study: StoredStudy, count: int) -> None:
    """Free the `count` closed places with the lowest numbers, within the caller's transaction."""
    table = tables.places
    closed = select(table.c.number).where(table.c.token == study.token, table.c.state == PlaceState.CLOSED)
    numbers = connection.execute(closed.order_by(table.c.number).limit(count)).scalars().all()
    opened = update(table).where(table.c.token == study.token, table.c.number.in_(numbers))
    connection.execute(opened.values(state=PlaceState.FREE, finished_at=None, reason=None))


def closing_of(study: StoredStudy) -> Closing | None:
    """What is closed in a stored study now; None if nothing is."""
    rows = Places.of(study).rows(PlaceState.CLOSED)
    if not rows:
        return None
    last = max(rows, key=lambda row: (row.finished_at or 0.0, row.number))
    return Closing(len(rows), study.spec.trials, last.finished_at or 0.0, last.reason or "unknown")


def hindsight(study: StoredStudy, rule: StopSpec | None = None) -> Hindsight | None:
    """Where the rule (the usual one without any) would have ended a search that has none. None if it would not have,
    or would have saved nothing.
    """
    if study.spec.stop is not None or study.search is not None or study.comparison is not None:
        return None
    rule = rule or StopSpec()
    rows = study.backend.transaction(lambda connection: connection.execute(_ended(study)).all())
    scored = [(at, row.value) for at, row in enumerate(rows, start=1) if row.value is not None]
    values = [value for _, value in scored]
    number = flat_after(values, rule)
    if number is None:
        return None
    after, of = scored[number - 1][0], Places.of(study).counts().total
    return Hindsight(rule, after, of, min(values[:number]) - min(values)) if after < of else None
