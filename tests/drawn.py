"""Epochs to draw pictures of."""

from affinity_search.search.training.heads.affinity_diagnostics import Diagnostics
from affinity_search.search.training.metrics import Scores
from affinity_search.search.training.results import EpochScore

F1 = tuple(0.05 * number for number in range(10))


DIAGNOSTICS = Diagnostics(1.2, 0.3, 0.95, (3, 2) * 5, 4, 1.0, 2.0, 0.5)


def epochs(told: Diagnostics | None = DIAGNOSTICS, n: int = 3) -> list[EpochScore]:
    confusion = tuple(tuple(int(8 * (row == column)) + (row + column) % 2 for column in range(10)) for row in range(10))
    scores = Scores(0.4, 0.5, F1, (8,) * 10, 0.3, 0.5, confusion)
    return [EpochScore(number, 1.0 / (number + 1), scores, 0.1, told) for number in range(n)]
