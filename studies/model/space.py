"""The search space: the parameters of the study's head and optimiser, and how each is read from a study file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from affinity_search.studies.errors import enumeration
from affinity_search.studies.heads import HEADS, HeadParameter, Number
from affinity_search.studies.model.mistakes import Mistake, given, missing, raised, unknown, unknown_key
from affinity_search.studies.model.parameters import (
    Choice,
    Constant,
    IntegerRange,
    Parameter,
    Params,
    RealRange,
    bounds,
    show_number,
)

RANGE_KEYS = ("low", "high", "log")
MOST_CHOICES = 1000


@dataclass(frozen=True)
class SpaceSpec:
    """What is searched: parameters of the head, then of the optimiser, in the order of their declaration."""

    head: str
    parameters: tuple[tuple[str, Parameter], ...]

    @classmethod
    def of(cls, raw: Any, head: str) -> SpaceSpec:
        """The space that a table of a study file means for that head; a space is checked again.

        Raises pydantic's ValidationError with every mistake in it.
        """
        raw = raw.to_plain() if isinstance(raw, SpaceSpec) else raw
        if not isinstance(raw, Mapping):
            raise raised("space", [((), given(raw, "a table [space]"))])
        declared = HEADS[head].searchable
        present = [each for each in declared if each.key in raw or each.default is None]
        mistakes = [mistake for parameter in present for mistake in _key_mistakes(raw, parameter)]
        known = [parameter.key for parameter in declared]
        strange = [key for key in raw if key not in known]
        mistakes += [((key,), text) for key in strange if (text := _of_another_head(key, head, known))]
        if mistakes or strange:
            unheard = [key for key in strange if not _owners(key)]
            raise raised("space", mistakes, {(key,): unknown_key(known) for key in unheard})
        return cls(head, tuple((each.key, _parsed(raw[each.key], each)) for each in present))

    @classmethod
    def recommended(cls, head: str, without: Sequence[str] = ()) -> dict[str, Any]:
        """The table [space] of a study that names the head and no space, without some of the parameters."""
        chosen = {key: text for key, text in HEADS[head].recommended.items() if key not in without}
        return tomllib.loads("\n".join(f"{key} = {text}" for key, text in chosen.items()))

    def items(self) -> list[tuple[str, Parameter]]:
        """The parameters with the names that they have in study files and in storage."""
        return list(self.parameters)

    def __getitem__(self, key: str) -> Parameter:
        """Raises KeyError for a parameter that the space has not."""
        return dict(self.parameters)[key]

    def __contains__(self, key: object) -> bool:
        return key in dict(self.parameters)

    def limits(self, key: str) -> HeadParameter:
        """What the numbers of the parameter may be."""
        return next(each for each in HEADS[self.head].searchable if each.key == key)

    @property
    def max_centers(self) -> int:
        """The most centres per class, or whatever sizes the head's arrays, that a trial can have: they are padded."""
        sizes = [max(bounds(self[each.key])) for each in HEADS[self.head].parameters if each.sizes_arrays]
        return int(max(sizes, default=1))

    def typed(self, params: Mapping[str, Number]) -> Params:
        """A trial's parameters in the head's order, each a number of its own type."""
        return {key: self.limits(key).number(params[key]) for key, _ in self.parameters}

    def point_mistakes(self, raw: Any) -> Iterator[Mistake]:
        """What is wrong with settings that are to be tried first: some of the parameters, each within the space."""
        if not isinstance(raw, Mapping):
            yield (), given(raw, "a table of settings")
            return
        for key, value in raw.items():
            if key not in self:
                yield (str(key),), f"not searched; the space has {enumeration([name for name, _ in self.parameters])}"
            elif not self.limits(key).accepts(value):
                yield (str(key),), given(value, self.limits(key).numbers)
            elif not self[key].contains(Constant(value=self.limits(key).number(value))):
                yield (str(key),), f"{show_number(value)} given; the space has {self[key].describe()}"

    def to_plain(self) -> dict[str, Any]:
        """The table as it stands in a study file."""
        return {key: parameter.to_plain() for key, parameter in self.parameters}


def presence_mistakes(raw: Any, head: str) -> Iterator[Mistake]:
    """Whether there is a table [space] for a head that needs one."""
    declared = HEADS[head]
    if declared.required and raw is None:
        such = ", ".join(f"{each.key} = {each.recommended}" for each in declared.required)
        needed = [each.key for each in declared.required]
        yield (
            ("space",),
            f"missing; the {head} head needs a table [space] with {enumeration(needed)}, for example {such}",
        )


def _owners(key: str) -> list[str]:
    """The heads that have the parameter."""
    return [name for name, head in HEADS.items() if key in [each.key for each in head.parameters]]


def _of_another_head(key: str, head: str, known: Sequence[str]) -> str | None:
    """What is wrong with another head's key; None for a key that no head has."""
    others = _owners(key)
    if not others:
        return None
    return (
        f"a setting of {enumeration(others)}, which the {head} head has not; it takes {enumeration(known)} "
        "(--set space=none takes the recommended space)"
    )


def _key_mistakes(raw: Mapping[str, Any], limits: HeadParameter) -> Iterator[Mistake]:
    if limits.key not in raw:
        yield (limits.key,), missing(limits.allowed)
        return
    for location, text in _value_mistakes(_plain(raw[limits.key]), limits):
        yield (limits.key, *location), text


def _plain(raw: Any) -> Any:
    return raw.to_plain() if isinstance(raw, (RealRange, IntegerRange, Choice, Constant)) else raw


def _parsed(raw: Any, limits: HeadParameter) -> Parameter:
    """The parameter that a value without mistakes means."""
    raw = _plain(raw)
    if isinstance(raw, Mapping):
        return _range(raw, limits)
    return Choice(values=tuple(map(limits.number, raw))) if _is_list(raw) else Constant(value=limits.number(raw))


def _range(raw: Mapping[str, Any], limits: HeadParameter) -> Parameter:
    log = raw.get("log", False)
    if limits.whole:
        return IntegerRange(low=int(raw["low"]), high=int(raw["high"]), log=log)
    return RealRange(low=float(raw["low"]), high=float(raw["high"]), log=log)


def _is_list(raw: Any) -> bool:
    return isinstance(raw, (list, tuple))


def _value_mistakes(raw: Any, limits: HeadParameter) -> list[Mistake]:
    if isinstance(raw, Mapping):
        return _range_mistakes(raw, limits)
    if _is_list(raw):
        return _choice_mistakes(raw, limits)
    return [] if limits.accepts(raw) else [((), given(raw, limits.allowed))]


def _range_mistakes(raw: Mapping[str, Any], limits: HeadParameter) -> list[Mistake]:
    mistakes: list[Mistake] = [
        ((key,), unknown(("space", limits.key, key), RANGE_KEYS)) for key in raw if key not in RANGE_KEYS
    ]
    for end in ("low", "high"):
        if end not in raw:
            mistakes.append(((end,), missing(limits.numbers)))
        elif not limits.accepts(raw[end]):
            mistakes.append(((end,), given(raw[end], limits.numbers)))
    if not isinstance(raw.get("log", False), bool):
        mistakes.append((("log",), given(raw["log"], "true or false")))
    return mistakes or _order_mistakes(limits.number(raw["low"]), limits.number(raw["high"]), raw.get("log", False))


def _order_mistakes(low: Number, high: Number, log: bool) -> list[Mistake]:
    if low == high:
        return [((), f"low and high are both {show_number(low)}; for a constant write the bare value")]
    if low > high:
        return [(("high",), f"{show_number(high)} given; allowed: a number above low, which is {show_number(low)}")]
    if log and low <= 0:
        return [(("log",), given(True, f"false, as low is {show_number(low)}, which has no logarithm"))]
    return []


def _choice_mistakes(raw: Sequence[Any], limits: HeadParameter) -> list[Mistake]:
    if not 1 <= len(raw) <= MOST_CHOICES:
        return [((), given(raw, f"a list of 1 to {MOST_CHOICES} values, each {limits.numbers}"))]
    wrong: list[Mistake] = [
        ((at,), given(value, limits.numbers)) for at, value in enumerate(raw) if not limits.accepts(value)
    ]
    if not wrong and len(set(map(limits.number, raw))) < len(raw):
        wrong = [((), given(raw, "a list of values that all differ"))]
    return wrong
