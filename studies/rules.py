"""Rules that tie keys of different sections together.

They read the raw tables, not the model: a file with mistakes in single values has no model, and shall hear of these
in the same breath. Values of a wrong type are passed over; the model reports them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from studies.mistakes import Mistake, given
from studies.sections import MOST_MINORITY, SIDES

OPTION_NAME = "options are keyword arguments of Optuna's class, made of letters, digits and underscores"
Raw = Mapping[str, Any]


def broken_rules(raw: Raw) -> Iterator[Mistake]:
    """Every rule that the tables of a study break."""
    yield from _minority(_table(raw, "data"))
    yield from _validation(raw, _table(raw, "data"))
    yield from _widths(_table(raw, "data"), _table(raw, "network"))
    yield from _space(raw, _table(raw, "network").get("head", "affinity"))
    yield from _options(_table(raw, "sampler"), _table(raw, "pruner"))


def _table(raw: Raw, key: str) -> Raw:
    found = raw.get(key)
    return found if isinstance(found, Mapping) else {}


def _known(data: Raw, table: Mapping[str, int]) -> int | None:
    name = data.get("set")
    return table.get(name) if isinstance(name, str) else None


def _minority(data: Raw) -> Iterator[Mistake]:
    most, minority = _known(data, MOST_MINORITY), data.get("minority")
    if most is not None and isinstance(minority, int) and minority > most:
        yield ("data", "minority"), given(minority, f"a whole number from 1 to {most} for {data['set']}")


def _validation(raw: Raw, data: Raw) -> Iterator[Mistake]:
    if raw.get("protocol") == "article" and data.get("validation") is not None:
        reason = "nothing, as the article protocol scores the test images (--set data.validation=none takes it out)"
        yield ("data", "validation"), given(data["validation"], reason)


def _widths(data: Raw, network: Raw) -> Iterator[Mistake]:
    side, widths = _known(data, SIDES), network.get("widths")
    if side is not None and isinstance(widths, (list, tuple)) and side.bit_length() < len(widths) <= 6:
        reason = f"at most {side.bit_length()} widths for {data['set']}, whose {side} pixels are halved between them"
        yield ("network", "widths"), given(widths, reason)


def _space(raw: Raw, head: object) -> Iterator[Mistake]:
    present = raw.get("space") is not None
    if head == "affinity" and not present:
        yield ("space",), "missing; the affinity head needs a table [space] with lambda, sigma and n_centers"
    if head == "softmax" and present:
        yield ("space",), "given, but the softmax head searches nothing; remove it (or pass --set space=none)"


def _options(sampler: Raw, pruner: Raw) -> Iterator[Mistake]:
    for table, keys in (("sampler", sampler), ("pruner", pruner)):
        yield from (((table, key), f"not allowed: {OPTION_NAME}") for key in keys if not key.isidentifier())
    yield from _unwanted_options(sampler, pruner)


def _unwanted_options(sampler: Raw, pruner: Raw) -> Iterator[Mistake]:
    if "seed" in sampler:
        yield ("sampler", "seed"), "not allowed: samplers are seeded from the study's seed and the place"
    if pruner.get("kind") == "none":
        yield from ((("pruner", key), "not allowed: kind none has no options") for key in pruner if key != "kind")
