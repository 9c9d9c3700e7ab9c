"""Reads a study's places: counts, rows, the best ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from sqlalchemy import ColumnElement, Select, func, select

from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import SCORED, USED, PlaceState
from affinity_search.storage.errors import RepeatedFailureError
from affinity_search.storage.places.place import HeldPlace, Outcome, Place, ScoredPlace


@dataclass(frozen=True)
class Counts:
    """Numbers of places of a study by state. `used` is the used part of the budget. `total` is without those that are
    closed: nobody will train them.
    """

    total: int
    free: int
    running: int
    complete: int
    pruned: int
    failed: int
    closed: int

    @property
    def used(self) -> int:
        return self.complete + self.pruned + self.failed

    def to_dict(self) -> dict[str, int]:
        names = ("total", "used", "running", "complete", "pruned", "failed", "closed")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def of(cls, by_state: Mapping[str, int]) -> Self:
        """From the number of places in each state."""
        return cls(
            total=sum(by_state.values()) - by_state.get(PlaceState.CLOSED, 0),
            free=by_state.get(PlaceState.FREE, 0),
            running=by_state.get(PlaceState.HELD, 0),
            complete=by_state.get(PlaceState.COMPLETE, 0),
            pruned=by_state.get(PlaceState.PRUNED, 0),
            failed=by_state.get(PlaceState.SPENT, 0),
            closed=by_state.get(PlaceState.CLOSED, 0),
        )

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


NONE = Counts.of({})


def counts_of(backend: Backend, tokens: Iterable[str]) -> dict[str, Counts]:
    """The counts of several studies in one query."""
    found: dict[str, dict[str, int]] = {token: {} for token in tokens}
    table = tables.places
    query = (
        select(table.c.token, table.c.state, func.count())
        .where(table.c.token.in_(list(found)))
        .group_by(table.c.token, table.c.state)
    )
    for token, state, count in backend.transaction(lambda connection: connection.execute(query).all()):
        found[token][state] = count
    return {token: Counts.of(by_state) for token, by_state in found.items()}


def leases_of(backend: Backend, tokens: Iterable[str]) -> set[tuple[str, str]]:
    """(worker, lease) of every held place of several studies, in one query. A lease is of one claim."""
    table = tables.places
    held = (table.c.token.in_(list(tokens)), table.c.state == PlaceState.HELD)
    query = select(table.c.worker, table.c.lease).where(*held)
    return {(row.worker, row.lease) for row in backend.transaction(lambda connection: connection.execute(query).all())}


class PlaceReader:
    """Questions about the places of one study. They change nothing."""

    def __init__(self, backend: Backend, token: str) -> None:
        self.backend = backend
        self._token = token

    def was_claimed_by(self, worker: str) -> bool:
        """Whether the worker is the last holder of any place."""
        table = tables.places
        query = select(func.count()).where(table.c.token == self._token, table.c.worker == worker)
        return bool(self._one(query))

    def was_used_by(self, worker: str) -> bool:
        """Whether the worker has used up any place."""
        table = tables.places
        mine = (table.c.token == self._token, table.c.worker == worker, table.c.state.in_(tables.USED))
        return bool(self._one(select(func.count()).where(*mine)))

    def counts(self) -> Counts:
        return counts_of(self.backend, [self._token])[self._token]

    def rows(self, *states: PlaceState) -> list[Place]:
        """The places in any of `states` (all without), by number."""
        return [Place.of(row._asdict()) for row in self._all(self._in(states))]

    def held(self) -> list[HeldPlace]:
        """The held places, by number."""
        return [HeldPlace.of(row._asdict()) for row in self._all(self._in([PlaceState.HELD]))]

    def rows_at(self, *numbers: int) -> dict[int, Place]:
        """The places with these numbers, as far as they exist."""
        table = tables.places
        query = select(table).where(table.c.token == self._token, table.c.number.in_(numbers))
        return {row.number: Place.of(row._asdict()) for row in self._all(query)}

    def best_rows(self, top: int) -> list[ScoredPlace]:
        """The `top` places with the least values, complete or pruned. With equal values the first place is first.

        Not the earlier trial: a killed worker's place is trained again under a later number, and that must not change
        what is best. A pruned place counts with the best of its epochs. Those of 0.1.0 have no value and do not count.
        """
        table = tables.places
        query = select(table).where(*self._with_value()).order_by(table.c.value, table.c.number).limit(top)
        return [ScoredPlace.of(row._asdict()) for row in self._all(query)]

    def scored(self) -> int:
        """How many places have a value."""
        return int(self._one(select(func.count()).where(*self._with_value())))

    def _in(self, states: Sequence[PlaceState]) -> Select[Any]:
        table = tables.places
        query = select(table).where(table.c.token == self._token).order_by(table.c.number)
        return query.where(table.c.state.in_(states)) if states else query

    def _with_value(self) -> tuple[ColumnElement[bool], ...]:
        table = tables.places
        return table.c.token == self._token, table.c.state.in_(SCORED), table.c.value.is_not(None)

    def outcomes(self) -> list[Outcome]:
        """Of every place."""
        table = tables.places
        query = select(table.c.number, table.c.state, table.c.trial, table.c.value).where(table.c.token == self._token)
        return [Outcome(number, PlaceState(state), trial, value) for number, state, trial, value in self._all(query)]

    def failures(self) -> dict[str, int]:
        """For each reason, how many places it used up; the most frequent first."""
        table = tables.places
        query = (
            select(table.c.reason, func.count())
            .where(table.c.token == self._token, table.c.state == PlaceState.SPENT)
            .group_by(table.c.reason)
            .order_by(func.count().desc())
        )
        return {row[0] or "unknown": row[1] for row in self._all(query)}

    def refuse_repeated_failure(self, workers: Sequence[str], since: float, times: int = 3) -> None:
        """Check the places that these workers have used since then (by the database's clock).

        Raises:
            RepeatedFailureError: the last `times` of them failed for the same cause.
        """
        table = tables.places
        mine = (table.c.worker.in_(workers), table.c.state.in_(USED), table.c.finished_at >= since)
        query = select(table).where(table.c.token == self._token, *mine).order_by(table.c.finished_at.desc())
        rows = self._all(query.limit(times))
        if len(rows) == times and {(row.state, row.cause) for row in rows} == {(PlaceState.SPENT, rows[0].cause)}:
            raise RepeatedFailureError(
                f"{times} places in a row failed for the same cause; solve it, then launch again for the other places: "
                f"{rows[0].reason}"
            )

    def mean_duration_s(self) -> float | None:
        """Mean time from claim to end of the used places; None before the first."""
        table = tables.places
        query = select(func.avg(table.c.finished_at - table.c.claimed_at)).where(
            table.c.token == self._token, table.c.state.in_(USED)
        )
        mean = self._one(query)
        return None if mean is None else float(mean)

    def _one(self, query: Select[Any]) -> Any:
        return self.backend.transaction(lambda connection: connection.execute(query).scalar_one())

    def _all(self, query: Select[Any]) -> Sequence[Any]:
        return self.backend.transaction(lambda connection: connection.execute(query).all())
