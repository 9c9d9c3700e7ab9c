"""Optuna's storage for who looks at whole studies again and again: finished trials are read from the database once.

`_CachedStorage` is what Optuna itself puts around every RDBStorage (`optuna.storages.get_storage`); its name is private
(checked with 5.0.0), but no public one leads to it. With a bare RDBStorage each look at 10,000 trials takes seconds.
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
    """As Optuna's, and forgets a study that was deleted: SQLite gives its ids to the next one."""

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
        """Read every study's trials; whatever prevents it is said to the one who asks for them."""
        with contextlib.suppress(SQLAlchemyError, StorageInternalError, KeyError):
            for study in self.get_all_studies():
                self.get_all_trials(study._study_id, deepcopy=False)


def reading_storage(backend: Backend) -> ReadingStorage:
    """For the dashboard."""
    return ReadingStorage(backend)
