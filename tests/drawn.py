"""Epochs to draw pictures of."""

from dataclasses import replace

from affinity_search.search.training.heads.affinity_diagnostics import Diagnostics
from affinity_search.search.training.metrics import Scores
from affinity_search.search.training.results import EpochScore

F1 = tuple(0.05 * number for number in range(10))


DIAGNOSTICS = Diagnostics(1.2, 0.3, 0.95, (3, 2) * 5, 4, 1.0, 2.0, 0.5)


def epochs(told: Diagnostics | None = DIAGNOSTICS, n: int = 3, classes: int = 10) -> list[EpochScore]:
    """`classes` is a multiple of ten."""
    each, times = range(classes), classes // 10
    confusion = tuple(tuple(int(8 * (row == column)) + (row + column) % 2 for column in each) for row in each)
    told = told and replace(told, dead=told.dead * times)
    scores = Scores(0.4, 0.5, F1 * times, (8,) * classes, 0.3, 0.5, confusion)
    return [EpochScore(number, 1.0 / (number + 1), scores, 0.1, told) for number in range(n)]
