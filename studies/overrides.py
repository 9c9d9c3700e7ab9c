"""`--set key.path=value`: single values laid over a study file."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from studies.mistakes import show

# What a study can do without: `--set KEY=none` takes it out of the file.
OPTIONAL = (("space",), ("data", "validation"))
KINDS = ("sampler.kind", "pruner.kind")
FORM = "--set key.path=value, as in --set training.epochs=20"


def lay_over(raw: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Changes the tables of a file by the overrides, one after the other; returns a line for each malformed one."""
    # A new kind of sampler or pruner takes the old one's options away, but not those given beside it.
    kinds_first = sorted(overrides, key=lambda override: override.partition("=")[0].strip() not in KINDS)
    return [line for override in kinds_first for line in _lay_over(raw, override)]


def _lay_over(raw: dict[str, Any], override: str) -> list[str]:
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    # No key holds control characters, nor the half characters that a terminal's odd bytes become.
    if not equals or not all(keys) or not path.isprintable():
        return [f"--set {show(override)}: not understood; allowed: {FORM}"]
    if path.strip() in KINDS:
        raw[keys[0]] = _of_kind(raw.get(keys[0]), _value(text))
    elif tuple(keys) in OPTIONAL and text.strip().strip("\"'") == "none":
        _remove(raw, keys)
    else:
        _put(raw, keys, _name(text) if keys == ["name"] else _value(text))
    return []


def _of_kind(table: Any, kind: Any) -> dict[str, Any]:
    """The section with this kind: as it is if it had it already, else without the other kind's options."""
    same = isinstance(table, dict) and table.get("kind") == kind
    return dict(table) if same else {"kind": kind}


def _remove(table: dict[str, Any], keys: Sequence[str]) -> None:
    *tables, last = keys
    for key in tables:
        table = table[key] if isinstance(table.get(key), dict) else {}
    table.pop(last, None)


def _put(table: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    *tables, last = keys
    for key in tables:
        below = table.get(key)
        if not isinstance(below, dict):
            # `space.n_centers.low=1` over a list or a bare value starts a range.
            below = table[key] = {}
        table = below
    table[last] = value


def _value(text: str) -> Any:
    """The text as a TOML value; as it stands where it is none, so that `data.set=mnist` needs no quotes."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip()
    # A text of several lines may be a whole TOML file.
    return parsed["value"] if parsed.keys() == {"value"} else text.strip()


def _name(text: str) -> str:
    """A name is text: `name=2024` is no number."""
    value = _value(text)
    return value if isinstance(value, str) else text.strip()
