"""A study as it lives in the database: its definition, its token, its fingerprint and the log of its changes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import optuna
from sqlalchemy import Connection, select, update

from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.patience import Patience
from affinity_search.storage.database.runtime import collector_skipping
from affinity_search.storage.database.tables import Stop
from affinity_search.storage.errors import StorageError, StudyNotFoundError
from affinity_search.studies.model.spec import StudySpec, fingerprint

# The one link from an Optuna study to our rows. It travels with the study, so a deleted study takes it along.
TOKEN_ATTRIBUTE = "affinity_search_token"
# Columns that are null until a process settles them. They are attributes of StoredStudy too.
SETTLED = ("precision", "data_dir", "train_data", "test_data")
# Columns that say what a study is part of. They never change, and are attributes of StoredStudy too.
PART_OF = ("search", "comparison", "contestant", "level")


@dataclass(frozen=True)
class StoredStudy:
    """A study as it lives in the database."""

    backend: Backend
    token: str
    spec: StudySpec
    precision: str | None  # settled by the first worker
    optuna: optuna.Study
    stopped: Stop | None = None  # since `stop`, until `launch`
    data_dir: str | None = None  # where the images were when it was created
    train_data: str | None = None  # JSON, what identifies the images; settled by the process that reads them first
    test_data: str | None = None
    search: str | None = None  # of a study of final runs: the token of the search that it judges
    comparison: str | None = None  # token of the comparison that the study is a part of
    contestant: str | None = None  # its contestant there
    level: str | None = None  # its level there, as JSON

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def fingerprint(self) -> str:
        """Hash of what a score of this study means. Before the precision is settled, the asked-for one counts."""
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
        """The same study with the definition that is stored now: others may have widened the space."""
        spec, kept = _definition(self.backend, self.token, self.name)
        return replace(self, spec=spec, **kept)

    def under_its_name(self) -> StoredStudy:
        """The same study with its present name: others may have renamed it.

        Raises:
            KeyError: it was deleted.
        """
        name = self.backend.optuna.get_study_name_from_id(self.optuna._study_id)
        return replace(self, spec=_named(self.spec, name))

    def settle_precision(self, precision: str) -> StoredStudy:
        """Settle the precision, if no earlier worker has. Returns the study with the settled one."""
        return self.settle("precision", precision, f"settled as {precision}")

    def settle(self, what: str, value: str, text: str) -> StoredStudy:
        """Settle one of SETTLED, if no earlier process has, and write `text` into the history.

        Returns:
            The study with the settled value, which an earlier process may have chosen.
        """
        column = tables.studies.c[what]
        unsettled = update(tables.studies).where(tables.studies.c.token == self.token, column.is_(None))

        def decide(connection: Connection) -> None:
            if connection.execute(unsettled.values({what: value})).rowcount:
                log(connection, self.backend, self.token, what, text)

        if getattr(self, what) is None:
            self.backend.transaction(decide)
        return self.refreshed()

    def record(self, kind: str, text: str) -> None:
        """Write a line into the history."""
        self.backend.transaction(lambda connection: log(connection, self.backend, self.token, kind, text))

    def read_ahead(self) -> None:
        """Read all trials of the study. Later requests then read only newer ones."""
        with collector_skipping():
            self.optuna.get_trials(deepcopy=False)

    def made_patient(self, patience: Patience) -> StoredStudy:
        """The same study for a worker: requests wait for a database that is away."""
        backend = replace(self.backend, patience=patience)
        return replace(self, backend=backend, optuna=optuna.load_study(study_name=self.name, storage=backend.optuna))


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
    study = optuna_study(backend, name)
    if study is None:
        return None
    token = token_of(backend, study)
    spec, kept = _definition(backend, token, name)
    return StoredStudy(backend, token, spec, optuna=study, **kept)


def study_by(backend: Backend, **columns: str) -> list[StoredStudy]:
    """The stored studies with these values in our table, oldest first."""
    table = tables.studies
    query = select(table.c.token).where(*(table.c[key] == value for key, value in columns.items()))
    found = backend.transaction(lambda connection: connection.execute(query.order_by(table.c.created_at)).all())
    names = {token: name for name, token in study_tokens(backend)} if found else {}
    studies = [find_study(backend, names[row.token]) for row in found if row.token in names]
    return [study for study in studies if study is not None]


def token_of(backend: Backend, study: optuna.Study) -> str:
    """The study's token, the key of our rows.

    Raises:
        StorageError: this program did not make the study.
    """
    token: str | None = study.user_attrs.get(TOKEN_ATTRIBUTE)
    if token is None:
        empty = "" if study.get_trials(deepcopy=False) else "; it is empty: delete it if nobody needs it"
        raise StorageError(
            f"{backend!s} holds a study {study.study_name!r} that affinity-search did not make; choose another name "
            f"with --name{empty}"
        )
    return token


def load_study(backend: Backend, name: str) -> StoredStudy:
    """The stored study of that name.

    Raises:
        StudyNotFoundError: there is none. The message lists the stored ones.
    """
    found = find_study(backend, name)
    if found is None:
        raise no_such_study(backend, name)
    return found


def no_such_study(backend: Backend, name: str) -> StudyNotFoundError:
    """The error, with the names of the stored studies, or with the command for a comparison of that name."""
    if is_comparison(backend, name):
        return StudyNotFoundError(f"{name!r} is a comparison; {COMPARISON_COMMANDS}")
    names = study_names(backend)
    there = "it holds " + ", ".join(names[:20]) if names else "it holds none"
    return StudyNotFoundError(f"no study {name!r} in {backend}; {there}")


COMPARISON_COMMANDS = (
    "compare, report, status, stop, delete, doctor, worker and export take its name, other commands that of one of its "
    "studies"
)


def is_comparison(backend: Backend, name: str) -> bool:
    """Whether a comparison of that name is stored."""
    query = select(tables.comparisons.c.token).where(tables.comparisons.c.name == name)
    return backend.transaction(lambda connection: connection.execute(query).first()) is not None


def history(study: StoredStudy) -> list[dict[str, Any]]:
    """What happened to the study, oldest first: `at` (seconds since 1970), `kind`, `text`."""
    table = tables.events
    query = select(table.c.at, table.c.kind, table.c.text).where(table.c.token == study.token).order_by(table.c.id)
    with study.backend.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def optuna_study(backend: Backend, name: str) -> optuna.Study | None:
    """Optuna's study of that name, whoever made it."""
    try:
        return optuna.load_study(study_name=name, storage=backend.optuna)
    except KeyError:
        return None


def _definition(backend: Backend, token: str, name: str) -> tuple[StudySpec, dict[str, Any]]:
    """The definition, and the attributes of StoredStudy that may be null."""
    columns = tables.studies.c
    kept = [columns[what] for what in (*SETTLED, *PART_OF, "stopped")]
    query = select(columns.definition, *kept).where(columns.token == token)
    row = backend.transaction(lambda connection: connection.execute(query).one_or_none())
    if row is None:
        raise StorageError(
            f"the definition of study {token} is missing from {backend}; was the study deleted, or its table cleared?"
        )
    found = {column.name: getattr(row, column.name) for column in kept}
    return _named(_read(row.definition), name), found | {"stopped": Stop(row.stopped) if row.stopped else None}


def _named(spec: StudySpec, name: str) -> StudySpec:
    """Optuna's name for the study counts: its dashboard can change it."""
    return spec if spec.name == name else spec.model_copy(update={"name": name})


@lru_cache(maxsize=16)
def _read(definition: str) -> StudySpec:
    """Cached: it is read before every trial, and checking it takes as long as a transaction."""
    return StudySpec.from_dict(json.loads(definition))


def log(connection: Connection, backend: Backend, token: str, kind: str, text: str) -> None:
    """Add a line to the history within the caller's transaction."""
    connection.execute(tables.events.insert().values(token=token, at=backend.now(), kind=kind, text=text))
