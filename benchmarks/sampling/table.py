"""The recorded trials: points in the unit cube and a macro F1 for every epoch."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from affinity_search.studies.files import load
from affinity_search.studies.model.parameters import IntegerRange, RealRange
from affinity_search.studies.model.space import SpaceSpec

HERE = Path(__file__).parent
TABLES = ("mnist", "cifar10")
PARAMETERS = ("lambda", "sigma", "n_centers")
BEST_SHARE = 0.05


@dataclass(frozen=True)
class Table:
    """R recorded trials of E epochs."""

    space: SpaceSpec
    points: NDArray[np.float64]  # (R, 3) in the unit cube, each by its logarithm
    macro_f1: NDArray[np.float64]  # (R, E)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def epochs(self) -> int:
        return int(self.macro_f1.shape[1])

    @property
    def best_rows(self) -> frozenset[int]:
        """The best twentieth of the rows by the macro F1 of their best epoch."""
        count = max(1, round(BEST_SHARE * len(self)))
        return frozenset(np.argsort(-self.macro_f1.max(axis=1), kind="stable")[:count].tolist())

    def nearest(self, params: Mapping[str, float | int], free: NDArray[np.bool_]) -> int:
        """The row nearest to the proposed parameters among those that are `free`."""
        distance = np.linalg.norm(self.points - to_cube(self.space, params), axis=1)
        return int(np.where(free, distance, np.inf).argmin())

    def part(self, rows: NDArray[np.intp]) -> Table:
        return Table(self.space, self.points[rows], self.macro_f1[rows])


def study_of(name: str) -> Path:
    """The study file of a table."""
    return HERE / f"{name}.toml"


def read(name: str) -> Table:
    """What `make search-table` recorded."""
    space = load(str(study_of(name))).space
    assert space is not None
    with (HERE / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    points = [to_cube(space, {name: float(row[name]) for name in PARAMETERS}) for row in rows]
    scores = [[float(value) for key, value in row.items() if key.startswith("macro_f1_")] for row in rows]
    return Table(space, np.array(points), np.array(scores))


def to_cube(space: SpaceSpec, params: Mapping[str, float | int]) -> NDArray[np.float64]:
    """(3,): each parameter's share of the way from its range's low to its high."""
    return np.array([_share(parameter, params[name]) for name, parameter in space.items()])


def _share(parameter: object, value: float) -> float:
    assert isinstance(parameter, RealRange | IntegerRange)
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        low, high, value = np.log([low, high, value])
    return float((value - low) / (high - low))
