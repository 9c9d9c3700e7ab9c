"""The budget: a study has N places, and a place's row decides who holds it and how it ended.

Optuna's own queue cannot do this: claiming a WAITING trial is not atomic on SQLite, and `n_trials` counts for each
process. So a worker claims a place with one conditional update, and only then creates its Optuna trial.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Connection, case, exists, insert, select, update

from affinity_search.storage import DEFAULT_LEASE_S
from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import CAUSE_LENGTH, Cause, PlaceState
from affinity_search.storage.errors import LostPlaceError
from affinity_search.storage.places.counts import PlaceReader
from affinity_search.storage.places.place import HeldPlace
from affinity_search.studies.model.parameters import Params

if TYPE_CHECKING:
    from sqlalchemy.sql.dml import ReturningUpdate

    from affinity_search.storage.study import StoredStudy

_CLAIMED = tuple(tables.places.c[key] for key in ("number", "attempt", "params", "draw", "source"))


@dataclass(frozen=True)
class Holder:
    """The worker that claims. `worker` is a new name for each process."""

    worker: str
    host: str
    pid: int
    device: str


@dataclass(frozen=True)
class Claim:
    """A place that this process holds. `lease` proves it in every later write."""

    number: int
    attempt: int  # from 1
    lease: str
    params: Params | None  # planned, or of an earlier attempt: then this one trains the same
    draw: int | None = None  # of a final run
    source: int | None = None


def add_places(connection: Connection, token: str, present: int, total: int) -> None:
    """Append places `present` … `total` − 1 within the caller's transaction. The caller holds the creation lock."""
    rows = [
        {"token": token, "number": number, "state": PlaceState.FREE, "attempt": 0} for number in range(present, total)
    ]
    if rows:
        connection.execute(insert(tables.places), rows)


class Places(PlaceReader):
    """The places of one study. Every method is one transaction and may be called from any process at any time."""

    def __init__(self, backend: Backend, token: str, lease_s: float, max_attempts: int) -> None:
        """Use `of`, which knows these values. After `max_attempts` a place is used up."""
        super().__init__(backend, token)
        self.lease_s = lease_s
        self._max_attempts = max_attempts

    @classmethod
    def of(cls, study: StoredStudy, lease_s: float = DEFAULT_LEASE_S) -> Self:
        """The places of a stored study. A claim holds for `lease_s` unless it is renewed."""
        return cls(study.backend, study.token, lease_s, study.spec.max_attempts)

    def claim(self, holder: Holder) -> Claim | None:
        """Take the lowest free place. None if no place is free or the study is stopped.

        No two callers ever get the same place.
        """
        lease = secrets.token_hex(16)
        statement = self._taking(holder, lease)
        table = tables.places
        claimed = select(*_CLAIMED).where(table.c.token == self._token, table.c.lease == lease)

        def take(connection: Connection) -> Any:
            # If an earlier try's answer was lost with the connection, it may have taken a place: this lease finds it.
            mine = connection.execute(claimed).one_or_none() if tries else None
            tries.append(1)
            return mine or connection.execute(statement).one_or_none()

        tries: list[int] = []
        row = self.backend.transaction(take)
        if row is None:
            return None
        params = json.loads(row.params) if row.params else None
        return Claim(row.number, row.attempt, lease, params, row.draw, row.source)

    def _taking(self, holder: Holder, lease: str) -> ReturningUpdate[Any]:
        """The update that takes the lowest free place, if there is one and the study is not stopped."""
        table, studies = tables.places, tables.studies
        stopped = exists().where(studies.c.token == self._token, studies.c.stopped.is_not(None))
        lowest = (
            select(table.c.number)
            .where(table.c.token == self._token, table.c.state == PlaceState.FREE, ~stopped)
            .order_by(table.c.number)
            .limit(1)
            .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer at a time anyway
            .scalar_subquery()
        )
        now = self.backend.now()
        return (
            update(table)
            .where(table.c.token == self._token, table.c.number == lowest, table.c.state == PlaceState.FREE)
            .values(
                state=PlaceState.HELD,
                lease=lease,
                lease_s=self.lease_s,
                lease_until=now + self.lease_s,
                attempt=table.c.attempt + 1,
                worker=holder.worker,
                host=holder.host,
                pid=holder.pid,
                device=holder.device,
                claimed_at=now,
                finished_at=None,
                trial=None,
                reason=None,
                cause=None,
            )
            .returning(*_CLAIMED)
        )

    def renew(self, claim: Claim) -> None:
        """Renew the lease: it then ends one full lease from now.

        Raises:
            LostPlaceError: somebody else holds the place.
        """
        self._held(claim, lease_until=self.backend.now() + self.lease_s)

    def expire(self, place: HeldPlace, reason: str) -> bool:
        """Free a held place that was just read, or use it up after its last attempt.

        Returns false and writes nothing if its holder has renewed or ended it since, or if somebody else was faster.
        """
        table = tables.places
        unchanged = (
            table.c.token == self._token,
            table.c.number == place.number,
            table.c.state == PlaceState.HELD,
            table.c.lease == place.lease,
            table.c.lease_until == place.lease_until,
            table.c.lease_until < self.backend.now(),
        )
        statement = update(table).where(*unchanged).values(**self._lost(Cause.LOST, reason))
        return self.backend.transaction(lambda connection: connection.execute(statement).rowcount == 1)

    def expiry_text(self, place: HeldPlace) -> str:
        """What `expire` would do with it."""
        if self.is_last(place.attempt):
            return f"spend the place: {place.attempt} of {self._max_attempts} attempts used"
        return f"free the place for attempt {place.attempt + 1} of {self._max_attempts}"

    def begin(self, claim: Claim, trial: int, params: Mapping[str, float | int]) -> None:
        """Record the attempt's Optuna trial and the place's parameters.

        Raises:
            LostPlaceError: somebody else holds the place.
        """
        self._held(claim, trial=trial, params=json.dumps(dict(params)))

    def finish(
        self,
        claim: Claim,
        state: PlaceState,
        *,
        value: float | None = None,
        cause: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Use the place up: COMPLETE or PRUNED with a value, or SPENT with cause and reason.

        Raises:
            LostPlaceError: somebody else holds the place; nothing was written.
        """
        cause = cause and cause[:CAUSE_LENGTH]
        self._held(claim, state=state, value=value, cause=cause, reason=reason, finished_at=self.backend.now())

    def give_back(self, claim: Claim, reason: str) -> None:
        """Free a place on purpose. The attempt does not count, and the parameters stay.

        Raises:
            LostPlaceError: somebody else holds the place.
        """
        attempt = tables.places.c.attempt - 1
        self._held(claim, state=PlaceState.FREE, attempt=attempt, cause=str(Cause.PREEMPTED), reason=reason)

    def fail_attempt(self, claim: Claim, cause: str, reason: str, *, last: bool = False) -> PlaceState:
        """Free the place after a failure that may pass, or use it up after its last attempt. Returns its new state.

        `last` makes this attempt the last one.

        Raises:
            LostPlaceError: somebody else holds the place.
        """
        spent = last or self.is_last(claim.attempt)
        state = PlaceState.SPENT if spent else PlaceState.FREE
        finished = self.backend.now() if spent else None
        self._held(claim, state=state, cause=cause[:CAUSE_LENGTH], reason=reason, finished_at=finished)
        return state

    def release_worker(self, worker: str, reason: str) -> None:
        """Free the place that a dead worker held, or use it up after its last attempt."""
        table = tables.places
        statement = (
            update(table)
            .where(table.c.token == self._token, table.c.worker == worker, table.c.state == PlaceState.HELD)
            .values(**self._lost(f"{Cause.DIED}: {reason}", reason))
        )
        self.backend.transaction(lambda connection: connection.execute(statement))

    def _lost(self, cause: str, reason: str) -> dict[str, Any]:
        """The values for a place that lost its holder: free for another attempt, or used up after the last."""
        last = self.is_last(tables.places.c.attempt)
        return {
            "state": case((last, str(PlaceState.SPENT)), else_=str(PlaceState.FREE)),
            "finished_at": case((last, self.backend.now())),
            "lease": None,
            "cause": cause[:CAUSE_LENGTH],
            "reason": reason,
        }

    def is_last(self, attempt: Any) -> Any:
        """Whether no further attempt follows. Takes a number, or the column in a statement."""
        return attempt >= self._max_attempts

    def _held(self, claim: Claim, **values: Any) -> None:
        """Write to the row if the claim still holds it. A row that this claim already ended in the same way stays."""
        table = tables.places
        mine = (table.c.token == self._token, table.c.number == claim.number, table.c.lease == claim.lease)
        write = update(table).where(*mine, table.c.state == PlaceState.HELD).values(**values)
        written = select(table.c.number).where(*mine, table.c.state == values.get("state"))

        def work(connection: Connection) -> bool:
            # Look again: an earlier try may have succeeded and lost its answer with the connection.
            return connection.execute(write).rowcount == 1 or connection.execute(written).first() is not None

        if not self.backend.transaction(work):
            raise LostPlaceError(f"another worker holds place {claim.number} now; this attempt is dropped")
