"""What goes into a training run and what comes out: plain numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, median_low
from typing import Any, Self

from affinity_search.search.devices.precision import PRECISIONS, Precision
from affinity_search.search.training.heads.affinity_diagnostics import Diagnostics
from affinity_search.search.training.metrics import DEFAULT, Scores, mean_scores, value_of

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("drops", "cosine")
SAMPLING = ("natural", "square_root", "balanced")


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. A run's parameters may have a `learning_rate` and a `weight_decay` of their own.

    The rate rises over the first `warmup` of the epochs, a share in [0, 1). With the schedule "drops" it is divided by
    `drop_by` from each of `drops` on, shares of the epochs too; with "cosine" it falls to 0 along half a cosine. The
    article's schedule is 100 epochs with drops (0.5, 0.8). `augment` turns on the data set's shifts and flips.
    `sampling` draws each epoch's images as they fall, by the square root of their class's size, or every class alike.
    From the share `reweight_from` of the epochs on, class-balanced weights multiply the loss (deferred re-weighting).
    `adjust` subtracts τ log π from the logits for a prediction; τ is chosen by `metric` on the evaluation images.
    """

    epochs: int
    batch: int
    learning_rate: float | None = None  # None where every run brings its own
    drops: tuple[float, ...] = ()
    augment: bool = False
    precision: Precision = "float32"
    optimizer: str = "adam"
    schedule: str = "drops"
    drop_by: float = 5.0
    warmup: float = 0.0
    sampling: str = "natural"
    reweight_from: float | None = None
    adjust: bool = False
    metric: str = DEFAULT
    decays: bool = False  # whether any run has a weight decay

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or (self.learning_rate is not None and not self.learning_rate > 0):
            raise ValueError(f"epochs, batch and learning_rate must be positive: {self}")
        known = (("precision", PRECISIONS), ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("sampling", SAMPLING))
        for key, allowed in known:
            if getattr(self, key) not in allowed:
                raise ValueError(f"{key} is {getattr(self, key)!r}; use {', '.join(allowed)}")


@dataclass(frozen=True)
class EpochScore:
    """One epoch, counted from 0: mean training loss, evaluation scores, seconds for training and evaluation.

    A trial may have several trainings, one after the other: `run` says which one this is, from 0, and `epoch` counts on
    over all of them. `diagnostics` is None for a head that tells nothing of its loss. `adjustment` is the τ that the
    predictions were adjusted by, None where they are not.
    """

    epoch: int
    loss: float
    scores: Scores
    duration_s: float
    diagnostics: Diagnostics | None = None
    adjustment: float | None = None
    run: int = 0

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
            "adjustment": self.adjustment,
        } | ({"run": self.run} if self.run else {})

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote. Raises KeyError or TypeError for anything else."""
        told = plain["diagnostics"]
        diagnostics = None if told is None else Diagnostics.from_dict(told)
        scores = Scores.from_dict(plain["scores"])
        adjustment = plain.get("adjustment")  # earlier versions did not adjust
        about = plain["duration_s"], diagnostics, adjustment, plain.get("run", 0)
        return cls(plain["epoch"], plain["loss"], scores, *about)


def best_epoch(epochs: Sequence[EpochScore], metric: str = DEFAULT) -> EpochScore:
    """The epoch of least value, the earliest of equals; `epochs` has at least one."""
    return max(epochs, key=lambda epoch: (epoch.scores[metric], -epoch.epoch))


def best_epochs(epochs: Sequence[EpochScore], metric: str = DEFAULT) -> list[EpochScore]:
    """The best epoch of each training of a trial."""
    return [best_epoch(list(run), metric) for _, run in groupby(epochs, key=lambda epoch: epoch.run)]


def overall(epochs: Sequence[EpochScore], metric: str = DEFAULT) -> EpochScore:
    """What a trial came to: its best epoch; of several trainings the mean of their best epochs.

    Its `epoch` is then the middle one of theirs, counted within a training, and it tells no diagnostics.
    """
    bests = best_epochs(epochs, metric)
    if len(bests) == 1:
        return bests[0]
    within = [best.epoch - _first(epochs, best.run) for best in bests]
    adjustments = [best.adjustment for best in bests if best.adjustment is not None]
    return EpochScore(
        median_low(within),
        fmean(best.loss for best in bests),
        mean_scores([best.scores for best in bests]),
        sum(best.duration_s for best in bests),
        adjustment=median_low(adjustments) if adjustments else None,
    )


def _first(epochs: Sequence[EpochScore], run: int) -> int:
    return next(epoch.epoch for epoch in epochs if epoch.run == run)


class RunningValue:
    """A trial's value so far, which a pruner may look at after every epoch: of one training its best epoch's.

    Of several it is the mean of those that are done and of the present one's best epoch so far, which weighs as much of
    one as its share of epochs that is done.
    """

    def __init__(self, metric: str, epochs: int) -> None:
        """`epochs` are those of one training."""
        self._metric = metric
        self._epochs = epochs
        self._done: list[float] = []  # values of the trainings that are done
        self._best = math.inf
        self.value = math.inf

    def add(self, score: EpochScore) -> float:
        """The value after one more epoch."""
        if score.run > len(self._done):
            self._done.append(self._best)
            self._best = math.inf
        self._best = min(self._best, value_of(score.scores, self._metric))
        if not self._done:
            self.value = self._best
            return self.value
        share = (score.epoch + 1 - len(self._done) * self._epochs) / self._epochs
        self.value = (sum(self._done) + share * self._best) / (len(self._done) + share)
        return self.value


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
