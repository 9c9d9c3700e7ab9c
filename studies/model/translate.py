"""From pydantic's errors to lines for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from affinity_search.studies.heads import HEADS
from affinity_search.studies.model.mistakes import CUSTOM, MOST, UNKNOWN, Location, Mistake, given, missing, unknown
from affinity_search.studies.model.tables.section import Section
from affinity_search.studies.model.tables.sections import EACH

Fields = dict[str, FieldInfo]


def translated(model: type[Section], error: ValidationError) -> list[Mistake]:
    """The mistakes of a validation error of the model, in the order of the model's fields."""
    found = error.errors(include_url=False)
    # Beyond the limit lines are only counted, and looking for near keys is slow.
    return [_mistake(model, each) if at < MOST else (each["loc"], "") for at, each in enumerate(found)]


def _mistake(model: type[Section], error: Any) -> Mistake:
    location: Location = error["loc"]
    if error["type"] == CUSTOM:
        return location, error["ctx"]["text"]
    if error["type"] == "extra_forbidden":
        return location, unknown(location, list(_table(model, location[:-1])), _all_keys(model))
    if error["type"] == UNKNOWN:  # in a space: what another head has there does not help
        return location, unknown(location, error["ctx"]["known"], list(_full_keys(model)))
    allowed = _allowed(model, location)
    if error["type"] == "missing":
        return location, missing(allowed)
    return location, given(error["input"], allowed)


def _allowed(model: type[Section], location: Location) -> str:
    """The description of the deepest field on the way to the location."""
    fields, allowed = keys(model), "a table of keys and values"
    for part in location:
        field = fields.get(str(part))
        if field is None:
            break
        allowed, fields = field.description or allowed, keys(submodel(field))
    # Within a list: what its values may be.
    return EACH.get(tuple(map(str, location[:-1])), allowed) if isinstance(location[-1], int) else allowed


def _table(model: type[Section], location: Location) -> Fields:
    fields = keys(model)
    for part in location:
        fields = keys(submodel(fields[str(part)]))
    return fields


def _all_keys(model: type[Section]) -> list[str]:
    """With those of every head's space, which is no table of fixed keys."""
    return [*_full_keys(model), *(f"space.{each.key}" for head in HEADS.values() for each in head.searchable)]


def _full_keys(model: type[Section], table: str = "") -> Iterator[str]:
    for key, field in keys(model).items():
        yield table + key
        yield from _full_keys_below(field, f"{table}{key}.")


def _full_keys_below(field: FieldInfo, table: str) -> Iterator[str]:
    below = submodel(field)
    if below is not None:
        yield from _full_keys(below, table)


def keys(model: type[Section] | None) -> Fields:
    """The model's fields by the keys that they have in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()} if model else {}


def submodel(field: FieldInfo) -> type[Section] | None:
    """The table that the field holds; None if it holds a value."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None
