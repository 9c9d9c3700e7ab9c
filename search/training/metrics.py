"""Scores of one evaluation: macro F1 first, the minority's share of it, and whatever else a study may maximise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """All scores are fractions in [0, 1]; tuples are indexed by class, `confusion` by (true, predicted) class.

    `more` holds those of METRICS that have no field of their own.
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
        """The score of that key. Raises KeyError for an unknown one."""
        return self.more[key] if key in self.more else METRICS[key](self)

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


# Each from what `Scores` holds: the confusion matrix, per class F1 and support.
METRICS: dict[str, Callable[[Scores], float]] = {"macro_f1": lambda scores: scores.macro_f1}
DEFAULT = "macro_f1"


def value_of(scores: Scores, metric: str = DEFAULT) -> float:
    """What a search minimises: 1 − metric."""
    return 1.0 - scores[metric]


def score(labels: NDArray[Any], predictions: NDArray[Any], n_classes: int, minority: Sequence[bool] = ()) -> Scores:
    """Score integer `predictions` (N,) against `labels` (N,) over all `n_classes` classes.

    A class that is neither present nor predicted counts with F1 = 0, so that a forgotten class always costs.
    `minority` says which classes are small. Where none or all are, the two means are those of all classes.
    Raises ValueError if the lengths differ or N = 0.
    """
    # Here, so that the plain numbers above can be read without waiting for scikit-learn.
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    if len(labels) != len(predictions) or len(labels) == 0:
        raise ValueError(f"{len(labels)} labels but {len(predictions)} predictions; both must have one length above 0")
    classes = np.arange(n_classes)
    small = np.asarray(minority or (False,) * n_classes, bool)
    _, _, f1, support = precision_recall_fscore_support(labels, predictions, labels=classes, zero_division=0)
    counted = Scores(
        macro_f1=float(np.mean(f1)),
        accuracy=float(np.mean(np.asarray(labels) == np.asarray(predictions))),
        per_class_f1=tuple(float(value) for value in f1),
        support=tuple(int(count) for count in support),
        minority_f1=_mean_f1(f1, small),
        majority_f1=_mean_f1(f1, ~small),
        confusion=tuple(
            tuple(int(count) for count in row) for row in confusion_matrix(labels, predictions, labels=classes)
        ),
    )
    own = {each.name for each in fields(Scores)}
    return replace(counted, more={key: compute(counted) for key, compute in METRICS.items() if key not in own})


def _mean_f1(f1: NDArray[Any], chosen: NDArray[np.bool_]) -> float:
    return float(np.mean(f1[chosen] if chosen.any() else f1))
