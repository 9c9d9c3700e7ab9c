"""A place as its row describes it. Only this module makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from affinity_search.storage import DEFAULT_LEASE_S
from affinity_search.storage.database.tables import USED, PlaceState
from affinity_search.studies.model.parameters import Params


@dataclass(frozen=True)
class Place:
    """The row of one place. Times are seconds since 1970 by the database's clock. None: not known yet."""

    token: str
    number: int
    state: PlaceState
    attempt: int  # attempts begun and counted
    lease: str | None  # the holder's proof that the place is its own
    lease_s: float | None
    lease_until: float | None
    worker: str | None  # the last holder, as host, pid and device
    host: str | None
    pid: int | None
    device: str | None
    claimed_at: float | None
    finished_at: float | None
    trial: int | None  # number of the last attempt's Optuna trial
    params: Params | None  # empty for the softmax head; None where they are not planned and no attempt has asked yet
    value: float | None  # 1 - metric of the best epoch; of a final run, on the test images
    draw: int | None  # of a final run: which images and which seed
    source: int | None  # of a final run: the search's trial that it trains again
    reason: str | None  # why the last attempt ended without a value
    cause: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From all columns of a row."""
        params = json.loads(row["params"]) if row["params"] else None
        return cls(**{**row, "state": PlaceState(row["state"]), "params": params})

    @property
    def is_used(self) -> bool:
        """Whether it has ended, with or without a value."""
        return self.state in USED

    @property
    def is_beginning(self) -> bool:
        """Whether its holder has not yet written the number of its trial."""
        return self.state == PlaceState.HELD and self.trial is None


@dataclass(frozen=True)
class HeldPlace(Place):
    """A place with a holder and a lease. The holder may have fallen silent."""

    lease: str
    lease_s: float
    lease_until: float
    worker: str
    host: str
    pid: int
    device: str
    claimed_at: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """As `Place.of`. If the length of the lease is unknown, it is the default."""
        return super().of({**row, "lease_s": row["lease_s"] or DEFAULT_LEASE_S})


@dataclass(frozen=True)
class ScoredPlace(Place):
    """A place that ended with a value, complete or pruned."""

    trial: int
    params: Params
    value: float


@dataclass(frozen=True)
class Outcome:
    """The few facts of a place that are read often."""

    number: int
    state: PlaceState
    trial: int | None
    value: float | None
