"""The four things that a searched parameter can be: a range of reals, a range of integers, a choice, a constant."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from affinity_search.studies.heads import Number

Params = dict[str, Number]  # a trial's, by their names in the study file


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Range(_Frozen):
    """Constructing one raises pydantic's ValidationError where low is not below high."""

    low: Number
    high: Number
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self

    def contains(self, other: Parameter) -> bool:
        """Whether every value of the other parameter is one of this range's."""
        return all(self.low <= value <= self.high for value in bounds(other))

    def describe(self) -> str:
        """The range as a person reads it: `10 to 1000 (log)`."""
        return f"{show_number(self.low)} to {show_number(self.high)}" + (" (log)" if self.log else "")

    def to_plain(self) -> dict[str, Any]:
        """The range as it stands in a study file."""
        return {"low": self.low, "high": self.high, "log": self.log}


class RealRange(_Range):
    """All reals from low to high, both included; with `log`, spread evenly over the logarithm."""

    low: float
    high: float


class IntegerRange(_Range):
    """All whole numbers from low to high, both included; with `log`, spread evenly over the logarithm."""

    low: int
    high: int


class Choice(_Frozen):
    """One of a few values, without an order."""

    values: tuple[Number, ...] = Field(min_length=1, strict=False)

    def contains(self, other: Parameter) -> bool:
        """Whether every value of the other parameter is one of this choice's."""
        return not isinstance(other, _Range) and set(self.values) >= set(bounds(other))

    def describe(self) -> str:
        """The choice as a person reads it: `one of 1, 5`."""
        return "one of " + ", ".join(map(show_number, self.values))

    def to_plain(self) -> list[Number]:
        """The choice as it stands in a study file."""
        return list(self.values)


class Constant(_Frozen):
    """One value, the same in every trial."""

    value: Number

    def contains(self, other: Parameter) -> bool:
        """Whether the other parameter has this value only."""
        return set(bounds(other)) == {self.value}

    def describe(self) -> str:
        """The value as a person reads it: `0.75`."""
        return show_number(self.value)

    def to_plain(self) -> Number:
        """The value as it stands in a study file."""
        return self.value


Parameter = RealRange | IntegerRange | Choice | Constant


def bounds(parameter: Parameter | _Range) -> tuple[Number, ...]:
    """The numbers that a parameter is made of: both ends of a range, all values of a choice, a constant's value."""
    if isinstance(parameter, _Range):
        return parameter.low, parameter.high
    return parameter.values if isinstance(parameter, Choice) else (parameter.value,)


def show_number(value: Number) -> str:
    """A number with all its digits, without the `.0` of a whole one."""
    return repr(value).removesuffix(".0")
