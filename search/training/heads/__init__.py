"""The last layers and their losses. Each is found by the name that its declaration has."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from affinity_search.search.training.heads.base import Head

# As text: these modules import Keras, and who only asks for a name, or reads diagnostics, must not wait for it.
HEADS = {
    "affinity": "affinity_search.search.training.heads.affinity:AffinityHead",
    "joint": "affinity_search.search.training.heads.joint:JointHead",
    "softmax": "affinity_search.search.training.heads.logit.softmax:SoftmaxHead",
    "weighted": "affinity_search.search.training.heads.logit.weighted:WeightedHead",
    "class_balanced": "affinity_search.search.training.heads.logit.class_balanced:ClassBalancedHead",
    "focal": "affinity_search.search.training.heads.logit.focal:FocalHead",
    "logit_adjusted": "affinity_search.search.training.heads.logit.logit_adjusted:LogitAdjustedHead",
    "ldam": "affinity_search.search.training.heads.logit.ldam:LdamHead",
}


def head_class(name: str) -> type[Head]:
    """The layer of that name. Raises ValueError naming the known ones."""
    if name not in HEADS:
        raise ValueError(f"head is {name!r}; the heads are {', '.join(HEADS)}")
    found: type[Head] = resolve_name(HEADS[name])
    return found
