"""Creates a study, or continues a stored one with the changes that are allowed."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Mapping
from types import MappingProxyType

from sqlalchemy import update

from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.optuna_storage.rdb import insert_study
from affinity_search.storage.errors import SmallerBudgetError, StudyMismatchError
from affinity_search.storage.places.claims import Places, add_places
from affinity_search.storage.places.closing import RAISED, REOPENED, reopen
from affinity_search.storage.study import TOKEN_ATTRIBUTE, StoredStudy, find_study, load_study, log
from affinity_search.storage.trials.sampling import idle_options, option_mistakes
from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.model.limits import excesses
from affinity_search.studies.model.mistakes import lines
from affinity_search.studies.model.spec import (
    PrunerSpec,
    SamplerSpec,
    StopSpec,
    StudySpec,
    fingerprint_differences,
    widening_differences,
)
from affinity_search.studies.model.tables.sections import AUDIT


def create_or_continue(backend: Backend, spec: StudySpec, *, resize: bool) -> tuple[StoredStudy, list[str]]:
    """Store a new study with its places, or continue the stored one of that name with the allowed changes.

    The sampler, the pruner, `[stop]` and the attempts at a place may change, and the space may become wider. With
    `resize` the number of trials may grow, and closed places are opened again. Each change is logged in the study. The
    caller holds `backend.exclusive()` since before it read the stored definition for `spec`.

    Returns:
        The study, and one line for each change and for each request without effect.

    Raises:
        StudyFileError: a number beyond reason, options that Optuna refuses, or `[stop]` where each place is needed.
        StudyMismatchError: the stored scores would mean something else. The message lists all lines that differ.
        SmallerBudgetError: with `resize`, the study has more places than that.
    """
    stored = find_study(backend, spec.name)
    refuse_mistakes(spec, stored.spec if stored else None)
    if stored is None:
        return create_study(backend, spec), [
            f"created study {spec.name!r} with {spec.trials} place{'s' * (spec.trials > 1)}",
            *idle_options(spec),
        ]
    notes = _continue(stored, spec, resize)
    return stored.refreshed(), notes


def refuse_mistakes(spec: StudySpec, former: StudySpec | None = None) -> None:
    """Refuse what no worker could train, before it is stored. What the `former` definition has already is accepted.

    Raises:
        StudyFileError: with a line for each mistake.
    """
    mistakes = [] if spec == former else _mistakes(spec)
    if mistakes and former is not None:
        mistakes = [line for line in mistakes if line not in _mistakes(former)]
    if mistakes:
        raise StudyFileError(spec.name, mistakes)


def _mistakes(spec: StudySpec) -> list[str]:
    return [*lines(list(excesses(spec.to_dict()))), *option_mistakes(spec)]


def create_study(
    backend: Backend,
    spec: StudySpec,
    columns: Mapping[str, str | None] = MappingProxyType({}),
    *,
    places: int | None = None,
    metric: str | None = None,
) -> StoredStudy:
    """Store a new study with `places` free places, by default those of its definition. The caller holds the lock.

    Optuna's rows and ours are written in one transaction, so a process that dies leaves nothing. `metric` is how the
    dashboard calls its value; `columns` are further ones of its row.
    """
    token = secrets.token_hex(16)
    asked = spec.training.precision
    places = spec.trials if places is None else places
    with backend.engine.begin() as connection:
        connection.execute(
            tables.studies.insert().values(
                token=token,
                definition=json.dumps(spec.to_dict()),
                created_at=backend.now(),
                **{"precision": None if asked == "auto" else asked} | dict(columns),
            )
        )
        add_places(connection, token, 0, places)
        log(connection, backend, token, "created", f"{places} places, protocol {spec.protocol}")
        # The metric's name has the protocol, so the dashboard shows it beside every score.
        attributes = {"protocol": spec.protocol, TOKEN_ATTRIBUTE: token}
        insert_study(connection, spec.name, attributes, metric or f"1 - {spec.score.label} ({spec.protocol})")
    return load_study(backend, spec.name)


NO_STOP = "not allowed for final runs and for the searches of a comparison, which all get their places"


def _continue(stored: StoredStudy, spec: StudySpec, resize: bool) -> list[str]:
    _check_same_meaning(stored, spec)
    old = stored.spec
    if spec.stop is not None and (stored.search or stored.comparison):
        raise StudyFileError(spec.name, [f"stop: {NO_STOP}"])
    counts = Places.of(stored).counts()
    if resize and spec.trials < counts.total:
        raise SmallerBudgetError(spec.name, spec.trials, counts)
    kept = []
    if not resize and spec.trials != old.trials:
        kept = [
            f"the study keeps its {old.trials} places, although the file says {spec.trials}; --trials N adds places"
        ]
    reopened = min(spec.trials - counts.total, counts.closed) if resize else 0
    spec = spec.model_copy(update={"trials": max(spec.trials, old.trials) if resize else old.trials})
    if spec.points != old.points:
        kept.append("the study keeps the points that it was created with")
        spec = spec.model_copy(update={"points": old.points})
    changes = _changes(old, spec, reopened)
    notes = [*kept, *(text for _, text in changes)]
    asked = spec.training.precision
    if stored.precision is None and asked != "auto":
        stored.settle_precision(asked)
        notes.append(f"precision settled as {asked}")
    if changes:
        _store_changes(stored, spec, changes, reopened)
        notes += [line for line in idle_options(spec) if line not in idle_options(old)]
    return notes


def _check_same_meaning(stored: StoredStudy, spec: StudySpec) -> None:
    asked = spec.training.precision
    lines = fingerprint_differences(stored.spec, spec)
    lines = [line for line in lines if not line.startswith("training.precision:")]
    if stored.precision is not None and asked not in ("auto", stored.precision):
        lines.append(f"training.precision: stored {stored.precision}, given {asked}")
    lines += widening_differences(stored.spec.space, spec.space)
    if lines:
        shown = "\n".join(f"  {line}" for line in lines)
        raise StudyMismatchError(
            f"study {spec.name!r} is stored with another definition:\n{shown}\n"
            "Its scores would no longer be comparable. To continue it as it is stored: affinity-search launch "
            f"{shlex.quote(spec.name)}; to search the new definition, give it another name with --name."
        )


def _changes(old: StudySpec, new: StudySpec, reopened: int) -> list[tuple[str, str]]:
    """The kind and the text of an event for each."""
    more = []
    if reopened:
        more.append((REOPENED, f"{reopened} closed place{'s' * (reopened > 1)}"))
    if new.trials > old.trials:
        more.append((RAISED, f"places raised from {old.trials} to {new.trials}"))
    return more + [("changed", text) for text in _changed_parts(old, new)]


def _changed_parts(old: StudySpec, new: StudySpec) -> list[str]:
    changes = []
    if new.space != old.space and new.space is not None and old.space is not None:
        before = dict(old.space.items())
        changes += [
            f"{name} widened: {before[name].describe()} → {parameter.describe()}"
            for name, parameter in new.space.items()
            if parameter != before[name]
        ]
    if new.max_attempts != old.max_attempts:
        changes.append(f"attempts at a place changed from {old.max_attempts} to {new.max_attempts}")
    for part in ("sampler", "pruner", "stop"):
        if getattr(new, part) != getattr(old, part):
            changes.append(f"{part} changed from {_label(getattr(old, part))} to {_label(getattr(new, part))}")
    if new.tracking != old.tracking:
        changes.append(f"tracking changed from {_target(old)} to {_target(new)}")
    return changes


def _target(spec: StudySpec) -> str:
    return spec.tracking.to if spec.tracking else "none"


def _label(part: SamplerSpec | PrunerSpec | StopSpec | None) -> str:
    if part is None:
        return "off"
    if isinstance(part, StopSpec):
        return part.text
    options = part.options
    if isinstance(part, PrunerSpec) and part.audit not in (None, AUDIT):
        options["audit"] = part.audit
    shown = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"{part.kind} ({shown})" if shown else str(part.kind)


def _store_changes(stored: StoredStudy, spec: StudySpec, changes: list[tuple[str, str]], reopened: int) -> None:
    """Write definition, places and log in one transaction. The caller holds the creation lock."""
    old = stored.spec
    parts = ("trials", "space", "sampler", "pruner", "stop", "max_attempts", "tracking")
    changed = {part: getattr(spec, part) for part in parts}
    merged = old.model_copy(update=changed)
    with stored.backend.engine.begin() as connection:
        connection.execute(
            update(tables.studies)
            .where(tables.studies.c.token == stored.token)
            .values(definition=json.dumps(merged.to_dict()))
        )
        if reopened:
            reopen(connection, stored, reopened)
        add_places(connection, stored.token, old.trials, spec.trials)
        for kind, text in changes:
            log(connection, stored.backend, stored.token, kind, text)
