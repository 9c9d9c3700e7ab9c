"""What turns images or vectors into features, and the layers for it. A network is found by its declaration's name."""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class Network:
    """How a network is built, and what it takes.

    `body` is a function of (images or vectors (N, …) as floats, NetworkConfig, precision) to feature maps
    (N, H', W', h) or features (N, h). As text, because these modules import Keras.
    """

    body: str
    vectors: bool = False  # whether it takes vectors (N, D), beside images
    halves: bool = True  # whether it halves the image between two widths
    bare: bool = False  # whether it may have no widths

    def build(self, x: Any, config: Any, precision: str) -> Any:
        """What its function makes of `x`."""
        body: Callable[..., Any] = resolve_name(self.body)
        return body(x, config, precision)


NETWORKS = {
    "plain": Network("affinity_search.search.training.networks.plain:stages"),
    "resnet32": Network("affinity_search.search.training.networks.resnet:stages"),
    "mlp": Network("affinity_search.search.training.networks.mlp:stages", vectors=True, halves=False, bare=True),
}
FIRST = "plain"  # that of every study whose file does not name one


def network_of(kind: str) -> Network:
    """The network of that name. Raises ValueError naming the known ones."""
    if kind not in NETWORKS:
        raise ValueError(f"kind is {kind!r}; the networks are {', '.join(NETWORKS)}")
    return NETWORKS[kind]
