"""The search space: the loss's three parameters, and how each is read from a study file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from affinity_search.studies.model.mistakes import Mistake, given, missing, raised, unknown
from affinity_search.studies.model.parameters import (
    Choice,
    Constant,
    IntegerRange,
    Number,
    Parameter,
    RealRange,
    bounds,
    show_number,
)
from affinity_search.studies.model.sections import EACH, Section

RANGE_KEYS = ("low", "high", "log")
MOST_CHOICES = 1000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the numbers of one parameter may be."""

    key: str
    numbers: str
    whole: bool
    above: float
    most: float

    def accept(self, value: object) -> bool:
        """Whether a value out of a file is a number within the limits."""
        # bool is a subclass of int, and `true` is no number.
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        # NaN and infinity lie within no limits.
        return self.above < value <= self.most

    def number(self, value: Any) -> Number:
        """An accepted number in the parameter's own type: reals are floats, also where the file has an integer."""
        return int(value) if self.whole else float(value)

    @property
    def allowed(self) -> str:
        """Everything that may stand for the parameter."""
        return f"{self.numbers}, a list of such, or {{ low, high }} with two such"


LAMBDA = Limits(key="lambda", numbers="a number above 0 and up to 1", whole=False, above=0, most=1)
# The largest float: a larger integer has no float beside it.
SIGMA = Limits(key="sigma", numbers=EACH["space", "sigma"], whole=False, above=0, most=1.7976931348623157e308)
N_CENTERS = Limits(key="n_centers", numbers="a whole number from 1 to 1000", whole=True, above=0, most=1000)


def limits_of(name: str) -> Limits:
    """What the numbers of the space's parameter of that name may be."""
    return {limits.key: limits for limits in (LAMBDA, SIGMA, N_CENTERS)}[name]


def parse(raw: Any, limits: Limits) -> Parameter:
    """The parameter that a value of a study file means; a parameter is checked again.

    Raises pydantic's ValidationError with every mistake in the value.
    """
    if isinstance(raw, (RealRange, IntegerRange, Choice, Constant)):
        raw = raw.to_plain()
    mistakes = list(_mistakes(raw, limits))
    if mistakes:
        raise raised("space", mistakes)
    if isinstance(raw, Mapping):
        return _range(raw, limits)
    return Choice(values=tuple(map(limits.number, raw))) if _is_list(raw) else Constant(value=limits.number(raw))


def _range(raw: Mapping[str, Any], limits: Limits) -> Parameter:
    log = raw.get("log", False)
    if limits.whole:
        return IntegerRange(low=int(raw["low"]), high=int(raw["high"]), log=log)
    return RealRange(low=float(raw["low"]), high=float(raw["high"]), log=log)


def _is_list(raw: Any) -> bool:
    return isinstance(raw, (list, tuple))


def _mistakes(raw: Any, limits: Limits) -> list[Mistake]:
    if isinstance(raw, Mapping):
        return _range_mistakes(raw, limits)
    if _is_list(raw):
        return _choice_mistakes(raw, limits)
    return [] if limits.accept(raw) else [((), given(raw, limits.allowed))]


def _range_mistakes(raw: Mapping[str, Any], limits: Limits) -> list[Mistake]:
    mistakes: list[Mistake] = [
        ((key,), unknown(("space", limits.key, key), RANGE_KEYS)) for key in raw if key not in RANGE_KEYS
    ]
    for end in ("low", "high"):
        if end not in raw:
            mistakes.append(((end,), missing(limits.numbers)))
        elif not limits.accept(raw[end]):
            mistakes.append(((end,), given(raw[end], limits.numbers)))
    if not isinstance(raw.get("log", False), bool):
        mistakes.append((("log",), given(raw["log"], "true or false")))
    return mistakes or _order_mistakes(limits.number(raw["low"]), limits.number(raw["high"]))


def _order_mistakes(low: Number, high: Number) -> list[Mistake]:
    if low == high:
        return [((), f"low and high are both {show_number(low)}; for a constant write the bare value")]
    allowed = f"a number above low, which is {show_number(low)}"
    return [(("high",), f"{show_number(high)} given; allowed: {allowed}")] if low > high else []


def _choice_mistakes(raw: Sequence[Any], limits: Limits) -> list[Mistake]:
    if not 1 <= len(raw) <= MOST_CHOICES:
        return [((), given(raw, f"a list of 1 to {MOST_CHOICES} values, each {limits.numbers}"))]
    wrong: list[Mistake] = [
        ((at,), given(value, limits.numbers)) for at, value in enumerate(raw) if not limits.accept(value)
    ]
    if not wrong and len(set(map(limits.number, raw))) < len(raw):
        wrong = [((), given(raw, "a list of values that all differ"))]
    return wrong


def _field(limits: Limits) -> tuple[BeforeValidator, PlainSerializer]:
    return BeforeValidator(lambda raw: parse(raw, limits)), PlainSerializer(lambda parameter: parameter.to_plain())


class SpaceSpec(Section):
    """What is searched. Validating one raises pydantic's ValidationError with every mistake in it."""

    lambda_: Annotated[Parameter, *_field(LAMBDA)] = Field(alias="lambda", description=LAMBDA.allowed)
    sigma: Annotated[Parameter, *_field(SIGMA)] = Field(description=SIGMA.allowed)
    n_centers: Annotated[Parameter, *_field(N_CENTERS)] = Field(description=N_CENTERS.allowed)

    def items(self) -> list[tuple[str, Parameter]]:
        """The parameters with the names that they have in study files and in storage."""
        return [("lambda", self.lambda_), ("sigma", self.sigma), ("n_centers", self.n_centers)]

    @property
    def max_centers(self) -> int:
        """The most centres per class that a trial can have: arrays are padded to it."""
        return int(max(bounds(self.n_centers)))
