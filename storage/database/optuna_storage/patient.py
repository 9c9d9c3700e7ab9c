"""Optuna's storage with patience: every request is tried again while the database is away."""

from __future__ import annotations

from optuna.storages import BaseStorage, RDBStorage, get_storage

from affinity_search.storage.database.optuna_storage.forwarding import forwarding
from affinity_search.storage.database.patience import Patience


def with_cache(rdb: RDBStorage) -> BaseStorage:
    """The cache that Optuna gives to every RDBStorage, and only to those (Optuna 5.0 calls it internal).

    Without it each trial would read the whole study again, because our storage wraps the RDBStorage.
    """
    return get_storage(rdb)


def patient_storage(storage: BaseStorage, patience: Patience) -> BaseStorage:
    """A BaseStorage. Every public method goes through `patience`."""
    made: BaseStorage = _PatientStorage(storage, patience)
    return made


class _PatientStorage(forwarding(lambda self, request: self._patience.call(request))):  # type: ignore[misc]
    def __init__(self, storage: BaseStorage, patience: Patience) -> None:
        self._storage = storage
        self._patience = patience
