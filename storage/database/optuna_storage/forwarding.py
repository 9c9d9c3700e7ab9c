"""A storage that stands before another one, method by method, made from Optuna's own list of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna.storages import BaseStorage

_METHODS = [name for name in vars(BaseStorage) if not name.startswith("_") and callable(getattr(BaseStorage, name))]


def forwarding(call: Callable[[Any, Callable[[], Any]], Any]) -> type[Any]:
    """A BaseStorage whose every public method is that of its `_storage`, done by `call(self, request)`."""

    def passed_on(name: str) -> Callable[..., Any]:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return call(self, lambda: getattr(self._storage, name)(*args, **kwargs))

        method.__name__ = name
        return method

    return type("Forwarding", (BaseStorage,), {name: passed_on(name) for name in _METHODS})
