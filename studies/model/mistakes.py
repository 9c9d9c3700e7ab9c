"""Lines that tell a person what to mend: the key, what was given, what is allowed."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from types import MappingProxyType

from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

Location = tuple[str | int, ...]
Mistake = tuple[Location, str]

SHOWN = 60
# A generated or hostile file may hold a hundred thousand mistakes; nobody reads them.
MOST = 100
CUSTOM, UNKNOWN = "mistake", "unknown"


class _Shortener(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = SHOWN

    def repr_int(self, x: int, level: int) -> str:
        # Beyond 4300 digits Python refuses to print an integer.
        return repr(x) if x.bit_length() <= 128 else f"<an integer of {x.bit_length()} bits>"

    def repr_bool(self, x: bool, level: int) -> str:
        return "true" if x else "false"

    def repr_date(self, x: date, level: int) -> str:
        return x.isoformat()

    # reprlib finds the method by the type's name.
    repr_datetime = repr_date


_shortener = _Shortener()


def show(value: object) -> str:
    """A value in at most about 60 characters, on one line; control characters are escaped."""
    text = _shortener.repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def show_text(text: str) -> str:
    """Text that a person named (a path, a word), escaped only where it holds what a terminal would act on."""
    return text if text.isprintable() else repr(text)


def show_key(location: Sequence[str | int]) -> str:
    """A key as it stands in the file: `space.sigma.low`, `network.widths[1]`."""
    shown = ""
    for part in location[:8]:
        shown += f"[{part}]" if isinstance(part, int) else f".{_show_part(part)}"
    return shown.removeprefix(".") + ("..." if len(location) > 8 else "")


def _show_part(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", part) else show(part)


def given(value: object, allowed: str) -> str:
    """What a line says of a wrong value."""
    if isinstance(value, float) and not math.isfinite(value) and "finite" not in allowed:
        allowed = allowed.replace("a number", "a finite number")
    return f"{show(value)} given; allowed: {allowed}"


def missing(allowed: str) -> str:
    """What a line says of a key that has to be there."""
    return f"missing; allowed: {allowed}"


def unknown(location: Location, known: Sequence[str], elsewhere: Sequence[str] = ()) -> str:
    """What a line says of a key that means nothing: the nearest right one, or all right ones.

    `known` are the keys of the same table, `elsewhere` the full keys of other tables.
    """
    *table, key = location
    near = _nearest(str(key), known)
    if near is not None:
        return f"unknown key; did you mean {show_key((*table, near))}?"
    same = [full for full in elsewhere if full.rpartition(".")[2] == key]
    if same:
        return f"unknown key; did you mean {same[0]}?"
    return f"unknown key; allowed here: {', '.join(known)}"


def _nearest(key: str, known: Sequence[str]) -> str | None:
    # Comparing a key of a megabyte would take minutes, and it is no misspelling.
    near = get_close_matches(key, known, n=1) if len(key) <= SHOWN else []
    return near[0] if near else None


def raised(
    title: str, mistakes: Iterable[Mistake], others: Mapping[Location, PydanticCustomError] = MappingProxyType({})
) -> ValidationError:
    """The mistakes as the error that a pydantic validator raises, each at its place below the validated field.

    `others` have no text yet, because who finds them knows nothing of the rest of the study.
    """
    # The text is passed as context: braces in it would be taken for fields of a template.
    found = [(location, PydanticCustomError(CUSTOM, "{text}", {"text": text})) for location, text in mistakes]
    details = [InitErrorDetails(type=kind, loc=location, input=None) for location, kind in [*found, *others.items()]]
    return ValidationError.from_exception_data(title, details)


def unknown_key(known: Sequence[str]) -> PydanticCustomError:
    """For `raised`: a key that the table has not; `known` are those that it has."""
    return PydanticCustomError(UNKNOWN, "unknown key", {"known": list(known)})


def lines(mistakes: Sequence[Mistake]) -> list[str]:
    """One line for each mistake."""
    return [f"{show_key(location)}: {text}" for location, text in mistakes]
