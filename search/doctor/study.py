"""What is wrong with a stored study: places of silent workers, trials that nobody ended, places without a score.

It changes nothing. A place is lost if `storage.places.recovery` would free it; the plan says what recovery would do.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from optuna.trial import FrozenTrial

from affinity_search.storage.database.tables import USED, PlaceState
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.places import recovery as recovering
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.counts import Counts
from affinity_search.storage.places.place import HeldPlace, Place
from affinity_search.storage.places.recovery import Action, Expiry, Recovery
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts, place_of

SETTLE_S = 1.0  # in this time a running worker writes both ends: the place's and the trial's


@dataclass(frozen=True)
class Held:
    """A place that a worker holds, or held until it fell silent."""

    place: int
    attempt: int
    trial: int | None
    worker: str
    host: str
    pid: int
    device: str
    renewed_s: float  # since the last renewal, by the database's clock
    lease_s: float
    state: Literal["alive", "lost"]  # lost: the lease is over
    gone: bool  # a process of this host that no longer exists
    recovery: str | None  # what recovery does when the lease is over; None while all is well


@dataclass(frozen=True)
class Half:
    """An Optuna trial that is marked as running, although its place has ended or another attempt holds it."""

    trial: int
    place: int | None
    recovery: str


@dataclass(frozen=True)
class EndedAttempt:
    """One attempt at a place that was used up without a value."""

    trial: int
    attempt: int | None
    ended: str
    reason: str
    worker: str


@dataclass(frozen=True)
class Spent:
    """A place that was used up without a value."""

    place: int
    reason: str
    attempts: tuple[EndedAttempt, ...]


@dataclass(frozen=True)
class Diagnosis:
    """A study at one moment."""

    study: str
    counts: Counts
    held: tuple[Held, ...]
    halves: tuple[Half, ...]
    spent: tuple[Spent, ...]
    leftovers: tuple[Path, ...]  # checkpoint files of used places

    @property
    def lost(self) -> list[Held]:
        return [one for one in self.held if one.state == "lost"]

    @property
    def gone(self) -> list[Held]:
        """Places of processes that are gone: nobody renews these leases, so they will end."""
        return [one for one in self.held if one.state == "alive" and one.gone]

    @property
    def ails(self) -> bool:
        """Whether recovery has something to do."""
        return bool(self.lost or self.halves)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        lists = {key: [asdict(one) for one in getattr(self, key)] for key in ("held", "halves", "spent")}
        counts = self.counts.to_dict() | {"free": self.counts.free}
        return {"study": self.study, "counts": counts} | lists | {"leftovers": [str(path) for path in self.leftovers]}


def examine(study: StoredStudy, files: StudyFiles | None, settle_s: float | None = None) -> Diagnosis:
    """Read the study's state. A half-ended trial that ends within `settle_s` (SETTLE_S if not given) is none: a worker
    was just writing its end.
    """
    recovery = Recovery(study)
    now, plan = _settled_plan(recovery, SETTLE_S if settle_s is None else settle_s)
    study = recovery.study  # as the plan found it
    places = Places.of(study)
    rows = places.rows()
    return Diagnosis(
        study=study.name,
        counts=places.counts(),
        held=tuple(_held(action, now, files) for action in plan if isinstance(action, Expiry)),
        halves=tuple(Half(half.trial, half.place, half.text) for half in _halves(plan)),
        spent=tuple(_spent(study, [row for row in rows if row.state == PlaceState.SPENT])),
        leftovers=tuple(files.left_behind(row.number for row in rows if row.state in USED) if files else ()),
    )


def is_mended(recovery: Recovery) -> bool:
    """Whether recovery has nothing left to do, and no dead process of this host holds a place."""
    now, plan = _settled_plan(recovery, 0.0)
    held = [_held(action, now, None) for action in plan if isinstance(action, Expiry)]
    return not _halves(plan) and all(one.state == "alive" and not one.gone for one in held)


def _settled_plan(recovery: Recovery, pause_s: float) -> tuple[float, list[Action]]:
    """What recovery would do, and the database's time before it was read: a lease that was renewed since is alive."""
    backend = recovery.study.backend
    now, plan = backend.time(), recovery.plan()
    first = {half.trial for half in _halves(plan)}
    if not first or not pause_s:
        return now, plan
    time.sleep(pause_s)
    now, plan = backend.time(), recovery.plan()
    return now, [action for action in plan if not isinstance(action, recovering.Half) or action.trial in first]


def _halves(plan: Sequence[Action]) -> list[recovering.Half]:
    return [action for action in plan if isinstance(action, recovering.Half)]


def _held(expiry: Expiry, now: float, files: StudyFiles | None) -> Held:
    place = expiry.held
    lost, gone = place.lease_until < now, _is_gone(place)
    return Held(
        place=place.number,
        attempt=place.attempt,
        trial=place.trial,
        worker=place.worker,
        host=place.host,
        pid=place.pid,
        device=place.device,
        renewed_s=max(0.0, now - (place.lease_until - place.lease_s)),
        lease_s=place.lease_s,
        state="lost" if lost else "alive",
        gone=gone,
        recovery=_recovery_of(expiry, files) if lost or gone else None,
    )


def _is_gone(place: HeldPlace) -> bool:
    """Whether the holder was a process of this host that has ended. On other hosts only the lease can tell."""
    if place.host != socket.gethostname():
        return False
    try:
        return psutil.Process(place.pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _recovery_of(expiry: Expiry, files: StudyFiles | None) -> str:
    """The text of the action, and whether the next attempt goes on from a checkpoint."""
    kept = files is not None and files.checkpoint(expiry.held.number).is_file()
    return expiry.text + (", which goes on from its checkpoint" if kept and not expiry.is_last else "")


def _spent(study: StoredStudy, rows: Sequence[Place]) -> Iterator[Spent]:
    if not rows:
        return
    # As `attempts_at`, for many places with one reading of the trials.
    trials = study.optuna.get_trials(deepcopy=False)
    for row in rows:
        attempts = [trial for trial in trials if place_of(trial) == row.number]
        yield Spent(row.number, row.reason or "unknown", tuple(_attempt(trial, row) for trial in attempts))


def _attempt(trial: FrozenTrial, row: Place) -> EndedAttempt:
    facts = TrialFacts.of(trial)
    of_place = row.reason if row.trial == trial.number else None
    return EndedAttempt(
        trial=trial.number,
        attempt=facts.attempt,
        ended=trial.state.name,
        reason=facts.reason or of_place or "unknown",
        worker=facts.worker or "unknown",
    )
