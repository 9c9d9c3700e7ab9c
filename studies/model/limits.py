"""How large a number may be that a person gives.

Apart from the model, which also reads what was stored before there were these bounds: such a study goes on as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from affinity_search.studies import networks
from affinity_search.studies.data import SOURCES
from affinity_search.studies.heads import HEADS
from affinity_search.studies.model.mistakes import Location, Mistake, given
from affinity_search.studies.model.tables.sections import EACH, LARGEST, MOST_WEIGHTS, OPTION_MOST, head_of


def excesses(raw: Mapping[str, Any]) -> Iterator[Mistake]:
    """Every number of a study's tables that no trial could survive; the model reports wrong types."""
    for location, most in LARGEST.items():
        yield from _above(location, _at(raw, location), most, EACH[location])
    head = head_of(raw)
    for parameter in HEADS[head].searchable if head else ():
        if parameter.most_stored is not None:  # the model itself refuses what is above the bounds of the others
            location = ("space", parameter.key)
            yield from _above(location, _at(raw, location), parameter.most, parameter.numbers)
    for section in ("sampler", "pruner"):
        table = _at(raw, (section,))
        for key, value in table.items() if isinstance(table, Mapping) else ():
            yield from _above((section, key), value, OPTION_MOST, f"a number up to {OPTION_MOST}")
    yield from _weights(_at(raw, ("network",)), _at(raw, ("data", "set")))


def _at(raw: Any, location: Location) -> Any:
    for key in location:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw


def _above(location: Location, value: Any, most: float, allowed: str) -> Iterator[Mistake]:
    """Within lists and ranges too."""
    if isinstance(value, Mapping):
        parts: Sequence[tuple[str | int, Any]] = [(key, value[key]) for key in ("low", "high") if key in value]
    elif isinstance(value, (list, tuple)):
        parts = list(enumerate(value))
    else:
        if isinstance(value, (int, float)) and value > most:
            yield location, given(value, allowed)
        return
    for part, each in parts:
        if isinstance(each, (int, float)):
            yield from _above((*location, part), each, most, allowed)


def _weights(network: Any, of: Any) -> Iterator[Mistake]:
    """`of` is the name of the data set, whatever the file says there."""
    kind, source = _at(network, ("kind",)) or networks.DEFAULT, SOURCES.get(of) if isinstance(of, str) else None
    declared = networks.NETWORKS.get(kind) if isinstance(kind, str) else None
    if declared is None:
        return
    widths, depth = _at(network, ("widths",)) or declared.widths, _at(network, ("depth",)) or declared.depth
    if not isinstance(widths, (list, tuple)) or not all(isinstance(width, int) for width in (*widths, depth)):
        return
    inputs = 3 if declared.convolutions or source is None else prod(source.shape)
    total = sum(declared.weights(widths[:6], min(depth, 32), inputs))
    if total > MOST_WEIGHTS:
        shown = f"widths {list(widths)[:6]} with depth {depth} make {total / 1e6:.0f} million weights"
        yield ("network", "widths"), f"{shown}; allowed: up to {MOST_WEIGHTS / 1e6:.0f} million"


LONGEST = 200
SUFFIX = ".toml"
RULE = f"1 to {LONGEST} printable characters"


def is_file_name(source: str) -> bool:
    """Whether a command takes the word for a study file's path."""
    return source.lower().endswith(SUFFIX)


def name_mistake(name: str) -> str | None:
    """What is wrong with the name, with what is allowed; None for a good one."""
    allowed = _broken(name)
    return given(name, allowed) if allowed else None


def _broken(name: str) -> str | None:
    """What is allowed instead."""
    if not (1 <= len(name) <= LONGEST and name.isprintable()):
        return RULE
    if not name.strip():
        return "a name that has more than blanks"
    if name.startswith("-"):
        return "a name that does not begin with -, as options do"
    if name in (".", "..") or "/" in name:
        return "a name that is no path: without /, and neither . nor .."
    if is_file_name(name):
        return f"a name that does not end in {SUFFIX}, as study files do"
    return None
