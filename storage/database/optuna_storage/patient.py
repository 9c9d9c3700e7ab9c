"""Optuna's storage, made patient: every request is tried again while the database is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna.storages import BaseStorage, RDBStorage, get_storage

from affinity_search.storage.database.patience import Patience


def with_cache(rdb: RDBStorage) -> BaseStorage:
    """The cache that Optuna itself gives to every RDBStorage and to nothing else (Optuna 5.0 calls it internal).

    Without it, whatever wraps the storage would make each trial read the whole study again.
    """
    return get_storage(rdb)


def patient_storage(storage: BaseStorage, patience: Patience) -> BaseStorage:
    """A BaseStorage whose every public method goes through `patience`."""
    made: BaseStorage = _PatientStorage(storage, patience)
    return made


def _patient(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._patience.call(lambda: getattr(self._storage, name)(*args, **kwargs))

    method.__name__ = name
    return method


_METHODS = [name for name in vars(BaseStorage) if not name.startswith("_") and callable(getattr(BaseStorage, name))]


class _PatientBase(BaseStorage):
    """Holds the storage behind it; the methods follow below, made from Optuna's own list of them."""

    def __init__(self, storage: BaseStorage, patience: Patience) -> None:
        self._storage = storage
        self._patience = patience


_PatientStorage: type[Any] = type("_PatientStorage", (_PatientBase,), {name: _patient(name) for name in _METHODS})
