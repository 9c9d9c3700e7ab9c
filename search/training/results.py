"""What goes into a training run and what comes out: plain numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from affinity_search.search.devices.precision import PRECISIONS, Precision
from affinity_search.search.training.heads.affinity_diagnostics import Diagnostics
from affinity_search.search.training.metrics import DEFAULT, Scores, value_of


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. `drops` are shares of the epochs, each in [0, 1], from which the rate is divided by 5.

    The article's schedule is 100 epochs with drops (0.5, 0.8). `augment` turns on the data set's shifts and flips.
    """

    epochs: int
    batch: int
    learning_rate: float
    drops: tuple[float, ...] = ()
    augment: bool = False
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise ValueError(f"epochs, batch and learning_rate must be positive: {self}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; use {', '.join(PRECISIONS)}")


@dataclass(frozen=True)
class EpochScore:
    """One epoch, counted from 0: mean training loss, evaluation scores, seconds for training and evaluation.

    `diagnostics` is None for a head that tells nothing of its loss.
    """

    epoch: int
    loss: float
    scores: Scores
    duration_s: float
    diagnostics: Diagnostics | None = None

    @property
    def number(self) -> int:
        """As people count: from 1."""
        return self.epoch + 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "epoch": self.epoch,
            "loss": self.loss,
            "scores": self.scores.to_dict(),
            "duration_s": self.duration_s,
            "diagnostics": self.diagnostics and self.diagnostics.to_dict(),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote. Raises KeyError or TypeError for anything else."""
        told = plain["diagnostics"]
        diagnostics = None if told is None else Diagnostics.from_dict(told)
        scores = Scores.from_dict(plain["scores"])
        return cls(plain["epoch"], plain["loss"], scores, plain["duration_s"], diagnostics)


def best_epoch(epochs: Sequence[EpochScore], metric: str = DEFAULT) -> EpochScore:
    """The epoch of least value, the earliest of equals; `epochs` has at least one."""
    return max(epochs, key=lambda epoch: (epoch.scores[metric], -epoch.epoch))


@dataclass(frozen=True)
class TrainingResult:
    """All epochs of one run, in order; at least one."""

    epochs: tuple[EpochScore, ...]
    metric: str = DEFAULT

    @property
    def best(self) -> EpochScore:
        """As `best_epoch`."""
        return best_epoch(self.epochs, self.metric)

    @property
    def value(self) -> float:
        """What the search minimises: that of the best epoch."""
        return value_of(self.best.scores, self.metric)
