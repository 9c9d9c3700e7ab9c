"""What the affinity loss does with its centres and its margin, in numbers and in words."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Diagnostics:
    """One epoch. `hinge`, `inside` and `dead` are of its training images, while the weights moved on.

    A centre is dead if it was never the nearest of its class's centres to any image of its class. An image is inside
    the margin if its hinge term, eq. (4), is above 0. Distances are those between centres at the end of the epoch.
    """

    hinge: float  # mean of eq. (4) over the images
    diversity: float  # R(w), eq. (6), at the end of the epoch
    inside: float  # share of images inside the margin
    dead: tuple[int, ...]  # dead centres of each class
    n_centers: int  # m
    within: float | None  # mean distance between centres of one class; None for m = 1
    between: float  # mean distance between centres of different classes
    closest: float  # the least of these

    @property
    def dead_share(self) -> float:
        """Dead centres among all."""
        return sum(self.dead) / (len(self.dead) * self.n_centers)

    @property
    def text(self) -> str:
        """In a sentence, for the last epoch of a trial."""
        return (
            f"At the end {self.inside:.0%} of the training images were inside the margin and {sum(self.dead)} of "
            f"{len(self.dead) * self.n_centers} centres dead; hinge {self.hinge:.4f}, diversity {self.diversity:.4f}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return asdict(self) | {"dead": list(self.dead)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote. Raises TypeError or KeyError for anything else."""
        return cls(**dict(plain) | {"dead": tuple(plain["dead"])})


@dataclass(frozen=True)
class Sign:
    """Something conspicuous in a trial's last diagnostics; `text` follows "trials with"."""

    text: str
    shows: Callable[[Diagnostics], bool]


SIGNS = (
    Sign("more than half of their centres dead", lambda told: told.dead_share > 0.5),
    Sign("more than 90 % of the training images inside the margin", lambda told: told.inside > 0.9),
)


def diagnose(centers: NDArray[np.float32], nearest: NDArray[np.float32], *, hinge: float, inside: float) -> Diagnostics:
    """From centres (C, m, h) and how often each was the nearest one (C, m); the rest as in `Diagnostics`.

    In NumPy: on the device every operation outside of a compiled function costs more than its computation.
    """
    n_classes, n_centers, width = centers.shape
    flat = centers.reshape(-1, width).astype("float64")
    squared = np.maximum(_squared(flat), 0.0)
    distances = np.sqrt(squared)
    classes = np.repeat(np.arange(n_classes), n_centers)
    pairs = np.triu(np.ones(distances.shape, bool), k=1)
    same = classes[:, None] == classes[None, :]
    within, between = distances[pairs & same], distances[pairs & ~same]
    return Diagnostics(
        hinge=hinge,
        diversity=float(squared[pairs].var()),
        inside=inside,
        dead=tuple(int(count) for count in (nearest == 0).sum(axis=1)),
        n_centers=n_centers,
        within=float(within.mean()) if len(within) else None,
        between=float(between.mean()),
        closest=float(between.min()),
    )


def _squared(points: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.square(points).sum(axis=1)
    squared: NDArray[np.float64] = norms[:, None] - 2 * points @ points.T + norms[None, :]
    return squared
