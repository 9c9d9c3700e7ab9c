"""What a study may maximise: one score is its metric, and a trial's value is 1 − metric."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A score in [0, 1], greater being better; `search/training/metrics.py` computes it."""

    key: str  # as a study's `metric`, and among the scores of a trial
    label: str  # as people read it
    about: str


DEFAULT = "macro_f1"
METRICS = {
    DEFAULT: Metric(DEFAULT, "macro F1", "mean of the classes' F1: each class counts alike, however few images it has"),
}


def score_of(value: float) -> float:
    """The metric of a trial's value, which Optuna minimises."""
    return 1.0 - value
