"""What a collector knows of a target: what is due there, how it is sent, and how a target fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from optuna.trial import FrozenTrial

from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.counts import Counts
from affinity_search.storage.places.place import Place
from affinity_search.storage.stored.agenda import Agenda
from affinity_search.storage.study import StoredStudy

FINISHED = (PlaceState.COMPLETE, PlaceState.PRUNED, PlaceState.SPENT)
ANSWER_S = 10.0  # for one answer of a target


class AwayError(Exception):
    """The target does not answer, or not as it should: try again later."""


class RefusedError(Exception):
    """The target takes all but this item."""


class LostError(Exception):
    """Another collector has taken the item over."""


@dataclass(frozen=True)
class Finished:
    """A used place and the Optuna trial that used it, which has ended. No trial: its attempts died before one began."""

    study: StoredStudy
    place: Place
    trial: FrozenTrial | None


@dataclass(frozen=True)
class Look:
    """The studies as they were at one moment."""

    agenda: Agenda
    studies: Sequence[StoredStudy]
    counts: Counts
    is_over: bool  # every place is used, and no more will be planned
    root: Path  # of the files

    @cached_property
    def finished(self) -> list[Finished]:
        """Of all studies, in the order of their ends."""
        return sorted(self._finished(), key=lambda one: (one.place.finished_at or 0.0, one.place.number))

    @cached_property
    def new_bests(self) -> set[tuple[str, int]]:
        """Token and place of each trial of a search that beat all that had ended before it."""
        least: dict[str, float] = {}
        found = set()
        for one in self.finished:
            token, value = one.study.token, one.place.value
            if value is not None and one.study.search is None and value < least.get(token, float("inf")):
                least[token] = value
                found.add((token, one.place.number))
        return found

    def _finished(self) -> Iterator[Finished]:
        for study in self.studies:
            rows = Places.of(study).rows(*FINISHED)
            trials = {trial.number: trial for trial in study.optuna.get_trials(deepcopy=False)} if rows else {}
            for row in rows:
                trial = None if row.trial is None else trials.get(row.trial)
                if trial is None or trial.state.is_finished():  # it follows its place at once
                    yield Finished(study, row, trial)


@dataclass(frozen=True)
class Item:
    """One thing to send. `token` and `name` are its key in the ledger."""

    token: str
    name: str
    send: Callable[[Guard], None]
    key: str  # unique in the world, and the same each time

    @classmethod
    def of(cls, token: str, name: str, send: Callable[[Guard], None]) -> Item:
        return cls(token, name, send, f"{token}/{name}")


@dataclass(frozen=True)
class Guard:
    """Asked before every write to a target."""

    renew: Callable[[], bool]
    is_fresh: bool  # nobody has begun to send the item before

    def __call__(self) -> None:
        """Raises LostError if another collector has taken the item over."""
        if not self.renew():
            raise LostError


class Target(Protocol):
    """Where items go."""

    @property
    def kind(self) -> str:
        """In the ledger, before the hash."""

    @property
    def name(self) -> str:
        """For people, without secrets."""

    @property
    def identity(self) -> str:
        """What its hash in the ledger is made of."""

    @property
    def noun(self) -> str:
        """What its items are, in singular."""

    def due(self, look: Look) -> list[Item]:
        """All that should be there by now, what was sent earlier too, in the order of sending."""

    def superseded(self, look: Look, waiting: Sequence[Item]) -> list[Item]:
        """Those of the waiting items that need not be sent any more."""


def why(error: BaseException) -> str:
    """The cause of a failed request in a few words, without addresses."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        one = todo.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        name = type(one).__name__
        if "Timeout" in name or isinstance(one, TimeoutError):
            return f"no answer within {ANSWER_S:.0f} s"
        if "SSL" in name or "Certificate" in name:
            return "its certificate is not accepted"
        if isinstance(one, OSError) and one.strerror and not type(one).__module__.startswith(("urllib.", "requests.")):
            return one.strerror.lower()
        todo += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return ""
