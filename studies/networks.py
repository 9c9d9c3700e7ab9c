"""The networks that a study may name: what turns an image into features, before the head."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkDefinition:
    """A network whose size a study gives by `widths` and `depth`; `search/training/networks/NAME.py` builds it."""

    name: str  # as a study's `network.kind`
    about: str  # what `widths` and `depth` are


_NETWORKS = (
    NetworkDefinition("plain", "`depth` convolutions of each width, pooling between the widths, as in the article"),
)
NETWORKS = {network.name: network for network in _NETWORKS}
DEFAULT = "plain"
