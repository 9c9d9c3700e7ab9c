"""What a study may maximise: one score is its metric, and a trial's value is 1 − metric."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A score in [0, 1], greater being better; `search/training/metrics.py` computes it."""

    key: str  # as a study's `metric`, and among the scores of a trial
    label: str  # as people read it
    about: str
    probabilities: bool = False  # whether it needs a head that gives some


DEFAULT = "macro_f1"
_METRICS = (
    Metric(DEFAULT, "macro F1", "mean of the classes' F1: each class counts alike, however few images it has"),
    Metric("balanced_accuracy", "balanced accuracy", "mean of the classes' recalls"),
    Metric(
        "geometric_mean", "geometric mean", "geometric mean of the classes' recalls: one forgotten class makes it 0"
    ),
    Metric("worst_recall", "worst recall", "recall of the class that is recognised least"),
    Metric("recall_many", "recall of many", "mean recall of the classes with many training images"),
    Metric("recall_medium", "recall of medium", "mean recall of the classes with a medium number of training images"),
    Metric("recall_few", "recall of few", "mean recall of the classes with few training images"),
    Metric("accuracy", "accuracy", "right answers among all images: large classes count most"),
    Metric(
        "calibration",
        "calibration",
        "1 − expected calibration error: how far the probabilities agree with the share of right answers",
        probabilities=True,
    ),
)
METRICS = {metric.key: metric for metric in _METRICS}


def score_of(value: float) -> float:
    """The metric of a trial's value, which Optuna minimises."""
    return 1.0 - value
