"""A storage that forwards every method of Optuna's interface to another storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna.storages import BaseStorage

_METHODS = [name for name in vars(BaseStorage) if not name.startswith("_") and callable(getattr(BaseStorage, name))]


def forwarding(call: Callable[[Any, Callable[[], Any]], Any]) -> type[Any]:
    """A BaseStorage. Every public method calls the same method of `_storage` through `call(self, request)`."""

    def passed_on(name: str) -> Callable[..., Any]:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return call(self, lambda: getattr(self._storage, name)(*args, **kwargs))

        method.__name__ = name
        return method

    return type("Forwarding", (BaseStorage,), {name: passed_on(name) for name in _METHODS})
