"""Whether the best trials crowd at a bound of the space, which then was too narrow: the article's best two did."""

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
    """Half of the best trials or more lie at one end of a parameter's range."""

    name: str
    end: str  # low or high
    near: int
    best: int
    bound: float
    edit: str | None  # what to pass to --set to widen it; None where the parameter can take no more

    @property
    def text(self) -> str:
        """A sentence with the next step."""
        where = f"within 5 % of {self.name}'s {self.end} bound {self.bound:g}"
        said = f"{self.near} of the {self.best} best trials lie {where}"
        return f"{said}: widen it with --set '{self.edit}'" if self.edit else f"{said}, which is as far as it can go"


def crowded_bounds(study: StoredStudy) -> list[Crowded]:
    """Of the stored study's present space; empty before five trials have a value."""
    places = Places.of(study)
    scored = places.scored()
    if study.spec.space is None or scored < LEAST:
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
    """Where the value lies between low (0) and high (1); beyond, if the trial is older than the present space."""
    low, high = _scaled(parameter, parameter.low), _scaled(parameter, parameter.high)
    return (_scaled(parameter, value) - low) / (high - low)


def _scaled(parameter: RealRange | IntegerRange, value: float) -> float:
    return math.log(value) if parameter.log else float(value)


def _edit(limits: HeadParameter, parameter: RealRange | IntegerRange, end: str) -> str | None:
    """The range, half as wide again at that end, as far as the parameter allows."""
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
    """To two significant digits: a bound that people write."""
    rounded = float(f"{value:.2g}")
    return round(rounded) if whole else rounded
