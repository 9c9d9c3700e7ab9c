"""Create or continue a study: its definition, its token, its fingerprint and the log of its changes."""

from __future__ import annotations

import json
import secrets
import warnings
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.study import StudyDirection
from sqlalchemy import Connection, select, update

from storage import tables
from storage.backend import Backend
from storage.errors import StorageError, StudyMismatchError, StudyNotFoundError
from storage.places import add_places
from studies.spec import StudySpec, fingerprint, fingerprint_differences, widening_differences

# The one link from an Optuna study to our rows. It travels with the study, so a deleted study takes it along.
TOKEN_ATTRIBUTE = "affinity_search_token"


@dataclass(frozen=True)
class StoredStudy:
    """A study as it lives in the database."""

    backend: Backend
    token: str
    spec: StudySpec
    precision: str | None  # settled by the first worker
    optuna: optuna.Study

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def fingerprint(self) -> str:
        """Hash of what a score of this study means; before the precision is settled, of the asked-for one."""
        return fingerprint(self.spec, self.precision or self.spec.training.precision)

    @property
    def settled_precision(self) -> str:
        """The precision that every trial of the study computes in.

        Raises:
            StorageError: no worker has settled it yet.
        """
        if self.precision is None:
            raise StorageError(f"study {self.name!r} has not been trained yet; start a worker first")
        return self.precision

    def refreshed(self) -> StoredStudy:
        """The same study with the definition that the database holds now: others may have widened it."""
        spec, precision = _definition(self.backend, self.token)
        return replace(self, spec=spec, precision=precision)

    def settle_precision(self, precision: str) -> StoredStudy:
        """Let the first worker decide the precision for every later one; returns the study with the settled one."""
        table = tables.studies
        with self.backend.engine.begin() as connection:
            won = connection.execute(
                update(table)
                .where(table.c.token == self.token, table.c.precision.is_(None))
                .values(precision=precision)
            ).rowcount
            if won:
                _log(connection, self.backend, self.token, "precision", f"settled as {precision}")
        return self.refreshed()


def study_names(backend: Backend) -> list[str]:
    """Names of the stored studies that this program made, sorted."""
    return [name for name, _ in study_tokens(backend)]


def study_tokens(backend: Backend) -> list[tuple[str, str]]:
    """(name, token) of every stored study that this program made, sorted by name."""
    stored = [study for study in backend.optuna.get_all_studies() if TOKEN_ATTRIBUTE in study.user_attrs]
    return sorted((study.study_name, study.user_attrs[TOKEN_ATTRIBUTE]) for study in stored)


def find_study(backend: Backend, name: str) -> StoredStudy | None:
    """The stored study of that name, or None.

    Raises:
        StorageError: an Optuna study of that name exists that this program did not make.
    """
    study = _optuna_study(backend, name)
    if study is None or _is_unfinished(study):
        return None
    token = study.user_attrs.get(TOKEN_ATTRIBUTE)
    if token is None:
        raise StorageError(
            f"{backend!s} holds a study {name!r} that affinity-search did not make; choose another name with --name"
        )
    spec, precision = _definition(backend, token)
    return StoredStudy(backend, token, spec, precision, study)


def load_study(backend: Backend, name: str) -> StoredStudy:
    """The stored study of that name.

    Raises:
        StudyNotFoundError: there is none; the message lists those that are.
    """
    found = find_study(backend, name)
    if found is None:
        names = study_names(backend)
        there = "it holds " + ", ".join(names[:20]) if names else "it holds none"
        raise StudyNotFoundError(f"no study {name!r} in {backend}; {there}")
    return found


def create_or_continue(backend: Backend, spec: StudySpec) -> tuple[StoredStudy, list[str]]:
    """Store a new study with its places, or continue the one of that name with what may change of it.

    Sampler, pruner, a higher number of trials and a wider space may change; each change is logged in the study.

    Returns:
        The study, and one line for every change made or request without effect.

    Raises:
        StudyMismatchError: the stored scores would mean something else; every differing line is listed.
    """
    with backend.exclusive():
        study = _optuna_study(backend, spec.name)
        if study is None or _is_unfinished(study):
            return _create(backend, spec, study), [f"created study {spec.name!r} with {spec.trials} places"]
        stored = load_study(backend, spec.name)
        notes = _continue(stored, spec)
        return stored.refreshed(), notes


def history(study: StoredStudy) -> list[dict[str, Any]]:
    """What happened to the study, oldest first: `at` (seconds since 1970), `kind`, `text`."""
    table = tables.events
    query = select(table.c.at, table.c.kind, table.c.text).where(table.c.token == study.token).order_by(table.c.id)
    with study.backend.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def _optuna_study(backend: Backend, name: str) -> optuna.Study | None:
    try:
        return optuna.load_study(study_name=name, storage=backend.optuna)
    except KeyError:
        return None


def _is_unfinished(study: optuna.Study) -> bool:
    """Whether the creator died before it wrote the token: nothing is there but what `_create` writes first."""
    return (
        set(study.user_attrs) <= {"protocol"}
        and study.directions == [StudyDirection.MINIMIZE]
        and not study.get_trials(deepcopy=False)
    )


def _definition(backend: Backend, token: str) -> tuple[StudySpec, str | None]:
    table = tables.studies
    with backend.engine.connect() as connection:
        row = connection.execute(
            select(table.c.definition, table.c.precision).where(table.c.token == token)
        ).one_or_none()
    if row is None:
        raise StorageError(f"the definition of study {token} is missing from {backend}; was its table cleared by hand?")
    return StudySpec.from_dict(json.loads(row.definition)), row.precision


def _create(backend: Backend, spec: StudySpec, unfinished: optuna.Study | None) -> StoredStudy:
    """Our rows first, the token last: a study without a token is one whose creator died, and is finished here."""
    study = unfinished or optuna.create_study(study_name=spec.name, storage=backend.optuna, direction="minimize")
    token = secrets.token_hex(16)
    asked = spec.training.precision
    with backend.engine.begin() as connection:
        connection.execute(
            tables.studies.insert().values(
                token=token,
                definition=json.dumps(spec.to_dict()),
                precision=None if asked == "auto" else asked,
                created_at=backend.now(),
            )
        )
        add_places(connection, token, 0, spec.trials)
        _log(connection, backend, token, "created", f"{spec.trials} places, protocol {spec.protocol}")
    with warnings.catch_warnings():
        # set_metric_names is marked experimental; it puts the protocol beside every score that the dashboard shows.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([f"1 - macro F1 ({spec.protocol})"])
    study.set_user_attr("protocol", spec.protocol)
    study.set_user_attr(TOKEN_ATTRIBUTE, token)
    return load_study(backend, spec.name)


def _continue(stored: StoredStudy, spec: StudySpec) -> list[str]:
    _check_same_meaning(stored, spec)
    old = stored.spec
    changes = _changes(old, spec)
    notes = list(changes)
    if spec.trials < old.trials:
        notes.append(f"the study keeps its {old.trials} places: {spec.trials} given, places are never taken away")
    asked = spec.training.precision
    if stored.precision is None and asked != "auto":
        stored.settle_precision(asked)
        notes.append(f"precision settled as {asked}")
    if changes:
        _store_changes(stored, spec, changes)
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
            "Its scores would no longer be comparable: give the new definition another name with --name."
        )


def _changes(old: StudySpec, new: StudySpec) -> list[str]:
    changes = []
    if new.trials > old.trials:
        changes.append(f"places raised from {old.trials} to {new.trials}")
    if new.space != old.space and new.space is not None and old.space is not None:
        before = dict(old.space.items())
        changes += [
            f"{name} widened from {before[name].describe()} to {parameter.describe()}"
            for name, parameter in new.space.items()
            if parameter != before[name]
        ]
    for part in ("sampler", "pruner"):
        if getattr(new, part) != getattr(old, part):
            changes.append(f"{part} changed from {_label(getattr(old, part))} to {_label(getattr(new, part))}")
    return changes


def _label(part: Any) -> str:
    options = ", ".join(f"{key}={value}" for key, value in part.options.items())
    return f"{part.kind} ({options})" if options else str(part.kind)


def _store_changes(stored: StoredStudy, spec: StudySpec, changes: list[str]) -> None:
    """Definition, places and log in one transaction; the caller holds the creation lock."""
    old = stored.spec
    trials = max(old.trials, spec.trials)
    merged = old.model_copy(
        update={"trials": trials, "space": spec.space, "sampler": spec.sampler, "pruner": spec.pruner}
    )
    with stored.backend.engine.begin() as connection:
        connection.execute(
            update(tables.studies)
            .where(tables.studies.c.token == stored.token)
            .values(definition=json.dumps(merged.to_dict()))
        )
        add_places(connection, stored.token, old.trials, trials)
        for change in changes:
            _log(connection, stored.backend, stored.token, "changed", change)


def _log(connection: Connection, backend: Backend, token: str, kind: str, text: str) -> None:
    connection.execute(tables.events.insert().values(token=token, at=backend.now(), kind=kind, text=text))
