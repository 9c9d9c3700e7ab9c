"""What turns an image into features, and the layers for it. A network is found by the name that its declaration has."""

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

# Each a function of (scaled images (N, H, W, channels), NetworkConfig, precision) to feature maps (N, H', W', h). As
# text, because these modules import Keras.
NETWORKS = {"plain": "affinity_search.search.training.networks.plain:stages"}
FIRST = "plain"  # that of every study whose file does not name one


def body_of(kind: str) -> Callable[..., Any]:
    """The function of that name. Raises ValueError naming the known ones."""
    if kind not in NETWORKS:
        raise ValueError(f"kind is {kind!r}; the networks are {', '.join(NETWORKS)}")
    found: Callable[..., Any] = resolve_name(NETWORKS[kind])
    return found
