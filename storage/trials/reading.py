"""Optuna's storage for readers of whole studies: finished trials are read from the database only once.

Optuna puts `_CachedStorage` around every RDBStorage (`optuna.storages.get_storage`). Its name is private (checked with
5.0.0), and there is no public one. With a bare RDBStorage each look at 10,000 trials takes seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container
from typing import TYPE_CHECKING

from optuna.exceptions import StorageInternalError
from optuna.storages import _CachedStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.runtime import collector_resting
from affinity_search.storage.study import TOKEN_ATTRIBUTE

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy


class ReadingStorage(_CachedStorage):
    """As Optuna's, but it forgets a deleted study: SQLite gives its ids to the next one."""

    def __init__(self, database: Backend) -> None:
        super().__init__(database.rdb)
        self.database = database
        self._seen: dict[int, tuple[str, str | None]] = {}

    def get_all_studies(self) -> list[FrozenStudy]:
        studies = sorted(super().get_all_studies(), key=lambda study: study._study_id)
        now = {study._study_id: (study.study_name, study.user_attrs.get(TOKEN_ATTRIBUTE)) for study in studies}
        with self._lock:
            for study_id, seen in self._seen.items():
                if now.get(study_id) != seen:
                    self._studies.pop(study_id, None)
            self._seen = now
        return studies

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with collector_resting():
            return super().get_all_trials(study_id, deepcopy, states)

    def read_ahead(self) -> None:
        """Read the trials of all studies. An error here is ignored: the request that needs them reports it."""
        with contextlib.suppress(SQLAlchemyError, StorageInternalError, KeyError):
            for study in self.get_all_studies():
                self.get_all_trials(study._study_id, deepcopy=False)


def reading_storage(backend: Backend) -> ReadingStorage:
    """For the dashboard."""
    return ReadingStorage(backend)
