"""What may not change between two starts of a study: what a score means, and the space but for widening."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from affinity_search.studies.model.mistakes import show
from affinity_search.studies.model.parameters import Choice, Constant, IntegerRange, Parameter, RealRange
from affinity_search.studies.model.tables.sections import LATER
from affinity_search.studies.model.writing import flat

if TYPE_CHECKING:
    from affinity_search.studies.model.space import SpaceSpec
    from affinity_search.studies.model.spec import StudySpec

GUARDED = ("data", "protocol", "metric", "network", "training", "seed")
WIDER = "a stored study's space can only become wider"
SAME_KEYS = "a stored study's space keeps its parameters"
SAME_LOG = "a stored study's log setting cannot change"
SAME_CHOICES = "a stored study's list of choices cannot change"
SAME_KIND = "a stored study's parameter cannot change between a list and a range"


def fingerprint(spec: StudySpec, precision: str) -> str:
    """SHA-256 (hex) of what a score means: equal for two studies whose scores can be compared.

    `precision` is the settled one; it stands in for the `auto` of the file.
    """
    guarded = _guarded(spec)
    guarded["training"] = {**guarded["training"], "precision": precision}
    canonical = json.dumps(guarded, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def fingerprint_differences(old: StudySpec, new: StudySpec) -> list[str]:
    """Lines for the guarded keys that differ: `training.epochs: stored 100, given 20`.

    A precision of `auto` on either side differs from nothing: the first worker settles it.
    """
    stored, fresh = dict(flat(_guarded(old))), dict(flat(_guarded(new)))
    usual = {".".join(location): default for location, default in LATER.items()}
    stored, fresh = usual | stored, usual | fresh
    if "auto" in (old.training.precision, new.training.precision):
        del stored["training.precision"], fresh["training.precision"]
    return [
        f"{key}: stored {_show(stored, key)}, given {_show(fresh, key)}"
        for key in {**stored, **fresh}
        if stored.get(key) != fresh.get(key)
    ]


def _guarded(spec: StudySpec) -> dict[str, Any]:
    whole = spec.to_dict()
    guarded = {key: whole[key] for key in GUARDED if key in whole}
    # Where own data lie may differ from machine to machine; `data.found` says what they are.
    guarded["data"] = {key: value for key, value in guarded["data"].items() if key != "path"}
    return guarded


def _show(values: dict[str, Any], key: str) -> str:
    value = values.get(key, "nothing")
    return value if isinstance(value, str) else show(value)


def widening_differences(old: SpaceSpec | None, new: SpaceSpec | None) -> list[str]:
    """Lines for what a stored study's space cannot become; none where the new one equals it or is wider."""
    if old is None or new is None:
        return [] if old is new else [f"space: stored {_presence(old)}, given {_presence(new)}"]
    if old.head != new.head:
        return []  # the head itself is guarded
    one_sided = [
        f"space.{name}: stored {_shown(old, name)}, given {_shown(new, name)}; {SAME_KEYS}"
        for name in {**dict(old.items()), **dict(new.items())}
        if (name in old) != (name in new)
    ]
    both = [name for name, _ in old.items() if name in new]
    return one_sided + [line for name in both for line in _refused(name, old[name], new[name])]


def _shown(space: SpaceSpec, name: str) -> str:
    return space[name].describe() if name in space else "nothing"


def _presence(space: SpaceSpec | None) -> str:
    return "no space" if space is None else "a space"


def _refused(name: str, old: Parameter, new: Parameter) -> Iterator[str]:
    reason = _reason(old, new)
    if reason is not None:
        yield f"space.{name}: stored {old.describe()}, given {new.describe()}; {reason}"


def _reason(old: Parameter, new: Parameter) -> str | None:
    """Why Optuna, or a fair comparison of the trials, refuses the new parameter in the old one's place."""
    if old == new:
        return None
    if isinstance(old, Choice) or isinstance(new, Choice):
        return SAME_CHOICES if isinstance(old, Choice) and isinstance(new, Choice) else SAME_KIND
    if _log(old) != _log(new):
        return SAME_LOG
    return None if new.contains(old) else WIDER


def _log(parameter: RealRange | IntegerRange | Constant) -> bool:
    # A constant is stored as a range without log whose ends are equal.
    return not isinstance(parameter, Constant) and parameter.log
