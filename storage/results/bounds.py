"""Finds bounds of the space at which the best trials crowd: there the space is too narrow. The article's best two
trials lay at one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import StoredStudy
from affinity_search.studies.heads import HeadParameter
from affinity_search.studies.model.parameters import IntegerRange, RealRange

BEST_SHARE = 10  # the best tenth of the trials that have a value …
LEAST = 5  # … but at least so many
NEAR = 0.05  # of the range, in logarithms where the space is


@dataclass(frozen=True)
class Crowded:
    """A parameter with half of the best trials or more at one end of its range."""

    name: str
    end: str  # low or high
    near: int
    best: int
    bound: float
    edit: str | None  # the value of --set that widens it; None if the parameter allows no more

    @property
    def text(self) -> str:
        """A sentence with the next step."""
        where = f"within 5 % of {self.name}'s {self.end} bound {self.bound:g}"
        said = f"{self.near} of the {self.best} best trials lie {where}"
        return f"{said}: widen it with --set '{self.edit}'" if self.edit else f"{said}; the range cannot be wider there"


def crowded_bounds(study: StoredStudy) -> list[Crowded]:
    """The crowded bounds of the stored study's present space. Empty before five trials have a value."""
    places = Places.of(study)
    scored = places.scored()
    if study.spec.space is None or study.search is not None or scored < LEAST:  # final runs are planned
        return []
    rows = places.best_rows(max(LEAST, scored // BEST_SHARE))
    found = []
    for name, parameter in study.spec.space.items():
        if isinstance(parameter, RealRange | IntegerRange):
            limits = study.spec.space.limits(name)
            found += _crowded(limits, parameter, [row.params[name] for row in rows])
    return found


def _crowded(limits: HeadParameter, parameter: RealRange | IntegerRange, values: Sequence[float]) -> list[Crowded]:
    shares = [_share(parameter, value) for value in values]
    ends = {"low": sum(share <= NEAR for share in shares), "high": sum(share >= 1 - NEAR for share in shares)}
    return [
        Crowded(limits.key, end, near, len(values), getattr(parameter, end), _edit(limits, parameter, end))
        for end, near in ends.items()
        if 2 * near >= len(values)
    ]


def _share(parameter: RealRange | IntegerRange, value: float) -> float:
    """Where the value lies, from low (0) to high (1). It can lie outside if the space has changed since the trial."""
    low, high = _scaled(parameter, parameter.low), _scaled(parameter, parameter.high)
    return (_scaled(parameter, value) - low) / (high - low)


def _scaled(parameter: RealRange | IntegerRange, value: float) -> float:
    return math.log(value) if parameter.log else float(value)


def _edit(limits: HeadParameter, parameter: RealRange | IntegerRange, end: str) -> str | None:
    """The range, wider by a half at that end, as far as the parameter allows."""
    low, high = _scaled(parameter, parameter.low), _scaled(parameter, parameter.high)
    wider = low - (high - low) / 2 if end == "low" else high + (high - low) / 2
    wanted = _rounded(math.exp(wider) if parameter.log else wider, limits.whole)
    most = limits.most if limits.most_stored is None else limits.most_stored
    wanted = min(max(wanted, _least(limits, parameter)), most)
    if wanted == getattr(parameter, end):
        return None
    plain: dict[str, Any] = parameter.to_plain() | {end: wanted}
    return f"space.{limits.key}={{low={plain['low']:g}, high={plain['high']:g}, log={str(parameter.log).lower()}}}"


def _least(limits: HeadParameter, parameter: RealRange | IntegerRange) -> float:
    """How far down a range may go. Where the limit itself is too little: half of the way, and a logarithm never gets
    to 0."""
    halfway = limits.exclusive and not (parameter.log and limits.least == 0)
    return (limits.least + parameter.low) / 2 if halfway else limits.least


def _rounded(value: float, whole: bool) -> float:
    """Rounded to two significant digits, as people write a bound."""
    rounded = float(f"{value:.2g}")
    return round(rounded) if whole else rounded
