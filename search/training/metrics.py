"""Scores of one evaluation: macro F1 first, the minority's share of it, and whatever else a study may maximise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from statistics import fmean
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MANY, MEDIUM, FEW = "many", "medium", "few"
LARGEST_BALANCED = 2.0  # classes that differ by less in size are all alike
BINS = 15  # of the calibration error, as in Guo et al. 2017


@dataclass(frozen=True)
class Counted:
    """What the metrics are computed from. C classes, N images.

    `confusion` (C, C) counts images by (true, predicted) class. Its rows may be scaled: then it stands for a set with
    other shares of the classes. `groups` says of each class whether it has many, medium or few training images.
    `probabilities` (N, C) are None for a head that gives none.
    """

    confusion: Floats
    labels: NDArray[Any]
    groups: tuple[str, ...]
    probabilities: NDArray[Any] | None = None

    @cached_property
    def support(self) -> Floats:
        """Images of each class, (C,)."""
        totals: Floats = self.confusion.sum(axis=1)
        return totals

    @cached_property
    def per_class_f1(self) -> Floats:
        """2 · right / (true + predicted), (C,); 0 for a class that is neither present nor predicted."""
        both = self.support + self.confusion.sum(axis=0)
        return _ratio(2.0 * np.diag(self.confusion), both)

    @cached_property
    def recalls(self) -> Floats:
        """Right answers among the images of each class, (C,); NaN for a class without images."""
        return np.where(self.support > 0, _ratio(np.diag(self.confusion), self.support), np.nan)

    @property
    def accuracy(self) -> float:
        """Right answers among all."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    def recall_of(self, group: str) -> float | None:
        """Mean recall of the classes of a group; None if there are none."""
        chosen = self.recalls[[each == group for each in self.groups]]
        return _mean(chosen)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _geometric_mean(counted: Counted) -> float:
    recalls = counted.recalls[~np.isnan(counted.recalls)]
    return float(np.exp(np.mean(np.log(recalls)))) if (recalls > 0).all() else 0.0


def _calibration(counted: Counted) -> float | None:
    """1 − expected calibration error. Guo et al. 2017, eq. (3), over 15 bins of equal width. The worst, 0, for NaN."""
    if counted.probabilities is None:
        return None
    if not np.isfinite(counted.probabilities).all():
        return 0.0
    confidence = counted.probabilities.max(axis=1)
    right = counted.probabilities.argmax(axis=1) == counted.labels
    images = np.bincount(counted.labels, minlength=len(counted.support))
    weights = _ratio(counted.support, images.astype(float))[counted.labels]
    bins = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(int)
    gaps = np.bincount(bins, weights=weights * (right - confidence), minlength=BINS)
    return float(1.0 - np.abs(gaps).sum() / weights.sum())


# None where the evaluation cannot tell.
METRICS: dict[str, Callable[[Counted], float | None]] = {
    "macro_f1": lambda counted: float(np.mean(counted.per_class_f1)),
    "balanced_accuracy": lambda counted: _mean(counted.recalls),
    "geometric_mean": _geometric_mean,
    "worst_recall": lambda counted: float(np.nanmin(counted.recalls)),
    "recall_many": lambda counted: counted.recall_of(MANY),
    "recall_medium": lambda counted: counted.recall_of(MEDIUM),
    "recall_few": lambda counted: counted.recall_of(FEW),
    "accuracy": lambda counted: counted.accuracy,
    "calibration": _calibration,
}
DEFAULT = "macro_f1"


def class_groups(class_sizes: Sequence[int]) -> tuple[str, ...]:
    """Of each class, whether it has many, medium or few training images.

    The borders divide the way from the smallest class to the largest into thirds, on a logarithmic scale. Fixed limits
    of 100 and 20 images, as in Liu et al. 2019 (arXiv 1904.05160), would call all classes of most sets large. Where the
    largest class has less than twice the images of the smallest, all have many.
    """
    n = np.maximum(np.asarray(class_sizes, float), 1.0)
    ratio = float(n.max() / n.min())
    if ratio < LARGEST_BALANCED:
        return (MANY,) * len(n)
    third = np.log(n / n.min()) / np.log(ratio) * 3
    return tuple(FEW if each <= 1 else MEDIUM if each < 2 else MANY for each in np.round(third, 9))


@dataclass(frozen=True)
class Scores:
    """All scores are fractions in [0, 1]; tuples are indexed by class, `confusion` by (true, predicted) class.

    `more` holds those of METRICS that have no field of their own, as far as the evaluation can tell them.
    """

    macro_f1: float
    accuracy: float
    per_class_f1: tuple[float, ...]
    support: tuple[int, ...]
    minority_f1: float
    majority_f1: float
    confusion: tuple[tuple[int, ...], ...]
    more: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote. Raises KeyError or TypeError for anything else."""
        known: dict[str, Any] = {key: plain[key] for key in ("macro_f1", "accuracy", "minority_f1", "majority_f1")}
        known |= {key: tuple(plain[key]) for key in ("per_class_f1", "support")}
        known["more"] = {key: plain[key] for key in METRICS if key in plain and key not in known}
        return cls(**known, confusion=tuple(tuple(row) for row in plain["confusion"]))

    def __getitem__(self, key: str) -> float:
        """The score of that key. Raises KeyError for one that is unknown, or that the evaluation could not tell."""
        own: dict[str, float] = {"macro_f1": self.macro_f1, "accuracy": self.accuracy}
        return own[key] if key in own else self.more[key]

    @property
    def micro_f1(self) -> float:
        """With one label an image, micro F1 is the accuracy."""
        return self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Plain floats, integers and lists, ready for JSON."""
        plain = asdict(self)
        del plain["more"]
        plain["per_class_f1"] = list(self.per_class_f1)
        plain["support"] = list(self.support)
        plain["confusion"] = [list(row) for row in self.confusion]
        return {**plain, "micro_f1": self.micro_f1, **self.more}


def mean_scores(each: Sequence[Scores]) -> Scores:
    """The mean of each score over several evaluations; images and answers are added up."""
    own = ("macro_f1", "accuracy", "minority_f1", "majority_f1")
    means: dict[str, Any] = {key: fmean(getattr(one, key) for one in each) for key in own}
    shared = [key for key in each[0].more if all(key in one.more for one in each)]
    confusion = np.sum([one.confusion for one in each], axis=0)
    return Scores(
        **means,
        per_class_f1=tuple(map(fmean, zip(*(one.per_class_f1 for one in each), strict=True))),
        support=tuple(map(sum, zip(*(one.support for one in each), strict=True))),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        more={key: fmean(one.more[key] for one in each) for key in shared},
    )


def softmax(logits: NDArray[Any]) -> Floats:
    """Probabilities (N, C) of logits (N, C)."""
    raised = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
    probabilities: Floats = raised / raised.sum(axis=1, keepdims=True)
    return probabilities


def value_of(scores: Scores, metric: str = DEFAULT) -> float:
    """What a search minimises: 1 − metric."""
    return 1.0 - scores[metric]


def score(
    labels: NDArray[Any],
    predictions: NDArray[Any],
    n_classes: int,
    minority: Sequence[bool] = (),
    *,
    class_sizes: Sequence[int] = (),
    probabilities: NDArray[Any] | None = None,
    shares: Sequence[float] | None = None,
) -> Scores:
    """Score integer `predictions` (N,) against `labels` (N,) over all `n_classes` classes.

    A class that is neither present nor predicted counts with F1 = 0, so that a forgotten class always costs.
    `minority` says which classes are small. Where none or all are, the two means are those of all classes.
    `class_sizes` are the training images of each class, `probabilities` (N, C). With `shares` (C,) the scores estimate
    those of a set with so many images of each class: row c of the confusion matrix counts shares[c] / support[c].
    Raises ValueError if the lengths differ or N = 0.
    """
    if len(labels) != len(predictions) or len(labels) == 0:
        raise ValueError(f"{len(labels)} labels but {len(predictions)} predictions; both must have one length above 0")
    labels, predictions = np.asarray(labels, int), np.asarray(predictions, int)
    pairs = np.bincount(labels * n_classes + predictions, minlength=n_classes**2)
    confusion = pairs.reshape(n_classes, n_classes)
    support = confusion.sum(axis=1)
    scaled = confusion.astype(float)
    if shares is not None:
        scaled *= _ratio(np.asarray(shares, float), support.astype(float))[:, None]
    counted = Counted(scaled, labels, class_groups(class_sizes or (1,) * n_classes), probabilities)
    small = np.asarray(minority or (False,) * n_classes, bool)
    found = {key: value for key, compute in METRICS.items() if (value := compute(counted)) is not None}
    return Scores(
        macro_f1=found["macro_f1"],
        accuracy=found["accuracy"],
        per_class_f1=tuple(float(value) for value in counted.per_class_f1),
        support=tuple(int(count) for count in support),
        minority_f1=_mean_f1(counted.per_class_f1, small),
        majority_f1=_mean_f1(counted.per_class_f1, ~small),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        more={key: value for key, value in found.items() if key not in _OWN},
    )


_OWN = tuple(each.name for each in fields(Scores))


def _mean_f1(f1: NDArray[Any], chosen: NDArray[np.bool_]) -> float:
    return float(np.mean(f1[chosen] if chosen.any() else f1))
