"""What a launch works on: one study, or the studies of a comparison one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.patience import Patience
from affinity_search.storage.places.counts import NONE, Counts, counts_of
from affinity_search.storage.study import StoredStudy


class Agenda(ABC):
    """Studies in an order. Workers take places of the first that has a free one, and then go on to the next."""

    backend: Backend
    token: str  # names the folder of its logs

    @property
    @abstractmethod
    def name(self) -> str:
        """What a worker is started with."""

    @property
    @abstractmethod
    def studies(self) -> list[StoredStudy]:
        """Those that there are now, in order."""

    @abstractmethod
    def advance(self) -> bool:
        """Plan what can be planned by now. Returns whether more will be planned later."""

    @abstractmethod
    def refreshed(self) -> Self:
        """The same as the database has it now."""

    @abstractmethod
    def made_patient(self, patience: Patience) -> Self:
        """The same for a process that waits for a database that is away."""

    @abstractmethod
    def under_its_name(self) -> Self:
        """The same with its present name: others may have renamed it."""

    def counts(self) -> Counts:
        """Of all its places."""
        return sum(counts_of(self.backend, [study.token for study in self.studies]).values(), NONE)

    def next(self) -> StoredStudy | None:
        """The first study with a free place; None if there is none now."""
        studies = self.studies
        free = counts_of(self.backend, [study.token for study in studies])
        return next((study for study in studies if free[study.token].free and not study.stopped), None)


@dataclass(frozen=True)
class OneStudy(Agenda):
    """A single study."""

    study: StoredStudy

    @property
    def backend(self) -> Backend:  # type: ignore[override]
        return self.study.backend

    @property
    def token(self) -> str:  # type: ignore[override]
        return self.study.token

    @property
    def name(self) -> str:
        return self.study.name

    @property
    def studies(self) -> list[StoredStudy]:
        return [self.study]

    def advance(self) -> bool:
        return False

    def refreshed(self) -> OneStudy:
        return replace(self, study=self.study.refreshed())

    def made_patient(self, patience: Patience) -> OneStudy:
        return replace(self, study=self.study.made_patient(patience))

    def under_its_name(self) -> OneStudy:
        return replace(self, study=self.study.under_its_name())
