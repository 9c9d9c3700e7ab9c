"""From a study's tables back to the text of a study file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def to_toml(tables: Mapping[str, Any]) -> str:
    """The tables as TOML: the bare keys first, then one section each, tables within these inline."""
    return "\n".join(_lines(tables)) + "\n"


def _lines(tables: Mapping[str, Any]) -> Iterator[str]:
    yield from (
        f"{_text(key)} = {value_text(value)}" for key, value in tables.items() if not isinstance(value, Mapping)
    )
    for name, section in tables.items():
        if isinstance(section, Mapping):
            yield from ("", f"[{name}]")
            yield from (f"{_text(key)} = {value_text(value)}" for key, value in section.items())


def flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`data.set` and its value, for each value of nested tables."""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def value_text(value: Any) -> str:
    """A value as it stands in a study file."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {value_text(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _text(key: str) -> str:
    # Options of Optuna's may be named in any letters; TOML's bare keys are ASCII.
    return key if key.isascii() else json.dumps(key, ensure_ascii=False)
