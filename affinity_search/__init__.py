"""Does this loss help on my images, with which settings, and is that luck?

`compare` gives a `Comparison` of losses: launch its workers, read its verdicts. `create` and `open` give a `Study`:
launch its workers, read its trials, evaluate and export the best. `AffinityHead` and `AffinityLoss` are the affinity
loss for any Keras model, `load_model` opens what `affinity-search train` wrote. What is named here is meant to stay;
other modules may change with every version. Importing this imports nothing heavy: Keras comes with these three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affinity_search.search.api import Comparison, Evaluated, Study, Trial, compare, create
    from affinity_search.search.api import open as open  # noqa: A004 - as files are opened
    from affinity_search.search.training.heads.affinity import AffinityHead, AffinityLoss
    from affinity_search.search.training.networks.saving import load_model

__all__ = [
    "AffinityHead",
    "AffinityLoss",
    "Comparison",
    "Evaluated",
    "Study",
    "Trial",
    "compare",
    "create",
    "load_model",
    "open",
]

# What imports Keras; all else is of the API.
_HEADS = "affinity_search.search.training.heads.affinity"
_ELSEWHERE = {
    "AffinityHead": _HEADS,
    "AffinityLoss": _HEADS,
    "load_model": "affinity_search.search.training.networks.saving",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_ELSEWHERE.get(name, "affinity_search.search.api")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
