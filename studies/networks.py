"""The networks that a study may name: what turns images or vectors into features, before the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkDefinition:
    """A network whose size a study gives by `widths` and `depth`; `search/training/networks/NAME.py` builds it.

    A study may leave out `widths` where there are some here. `search/training/networks/__init__.py` has `vectors`,
    `halves` and `bare` too.
    """

    name: str  # as a study's `network.kind`
    about: str  # what `widths` and `depth` are
    widths: tuple[int, ...] | None = None  # of a study that gives none; None: it must
    depth: int = 1  # of a study that gives none
    convolutions: int = 1  # of 3×3 in each of the `depth` steps of a width; 0: one dense layer there
    vectors: bool = False  # whether it takes vectors (D,), beside images
    halves: bool = True  # whether it halves the image between two widths
    rises: bool = False  # whether no width may be below the one before
    bare: bool = False  # whether `widths` may be empty

    def weights(self, widths: Sequence[int], depth: int, inputs: int) -> list[int]:
        """Of the layers of each width, the batch norms left out.

        `inputs` are an image's channels where there are convolutions, else the values of an image or a vector.
        """
        kernel, layers = (9, self.convolutions * depth) if self.convolutions else (1, depth)
        before = (inputs, *widths)
        return [kernel * width * (wide + (layers - 1) * width) for wide, width in zip(before[:-1], widths, strict=True)]


_NETWORKS = (
    NetworkDefinition("plain", "`depth` convolutions of each width, pooling between the widths, as in the article"),
    NetworkDefinition(
        "resnet32",
        "the residual network for CIFAR: `depth` blocks of two convolutions of each width, a stride of 2 between the "
        "widths. He et al. 2016, section 4.2",
        widths=(16, 32, 64),
        depth=5,
        convolutions=2,
        rises=True,
    ),
    NetworkDefinition(
        "mlp",
        "`depth` dense layers of each width on all values of an image or a vector",
        convolutions=0,
        vectors=True,
        halves=False,
        bare=True,
    ),
)
NETWORKS = {network.name: network for network in _NETWORKS}
DEFAULT = "plain"
