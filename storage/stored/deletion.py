"""Deletes a study: its rows in our tables and in Optuna's, and its files. No worker may train it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import Connection, Row, delete, select, update

from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.errors import HeldPlacesError
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.stored.comparisons import StoredComparison, delete_comparison_row
from affinity_search.storage.study import no_such_study, optuna_study, study_by, token_of
from affinity_search.storage.trials.artifacts import RECORD_PREFIX, artifacts_folder


def require_idle(backend: Backend, name: str) -> None:
    """Raises as `delete_study` would, and changes nothing."""
    token = token_of(backend, _existing(backend, name))
    backend.transaction(lambda connection: _refuse_holders(connection, backend, token, name))
    for final in study_by(backend, search=token):
        require_idle(backend, final.name)


def delete_comparison(comparison: StoredComparison, root: Path) -> None:
    """Remove the comparison with all its studies, otherwise as `delete_study`."""
    for part in comparison.parts():
        delete_study(comparison.backend, part.search.name, root)
    delete_comparison_row(comparison.backend, comparison.token)


def delete_study(backend: Backend, name: str, root: Path) -> None:
    """Remove the study, its final runs and its files under `root`. If the process is killed half-way, the next call
    does the rest.

    Raises:
        StudyNotFoundError: there is none of that name.
        StorageError: this program did not make it.
        HeldPlacesError: a worker holds one of its places; nothing was removed.
    """
    for final in study_by(backend, search=token_of(backend, _existing(backend, name))):
        delete_study(backend, final.name, root)
    with backend.exclusive():
        study = _existing(backend, name)
        token = token_of(backend, study)
        backend.transaction(lambda connection: _remove_places(connection, backend, token, name))
        artifacts = _artifacts(backend, study)
        optuna.delete_study(study_name=name, storage=backend.optuna)
        backend.transaction(lambda connection: _remove_rows(connection, token))
    _remove_files(StudyFiles(root, token), artifacts)


def _existing(backend: Backend, name: str) -> optuna.Study:
    study = optuna_study(backend, name)
    if study is None:
        raise no_such_study(backend, name)
    return study


def _remove_places(connection: Connection, backend: Backend, token: str, name: str) -> None:
    """Delete the places, so that nobody can claim one. The rows are locked first: no claim can come in between."""
    table, studies = tables.places, tables.studies
    # In SQLite a write takes the lock, in PostgreSQL a SELECT … FOR UPDATE.
    connection.execute(update(studies).where(studies.c.token == token).values(created_at=studies.c.created_at))
    connection.execute(select(table.c.number).where(table.c.token == token).with_for_update()).all()
    _refuse_holders(connection, backend, token, name)
    connection.execute(delete(table).where(table.c.token == token))


def _refuse_holders(connection: Connection, backend: Backend, token: str, name: str) -> None:
    table = tables.places
    living = (table.c.token == token, table.c.state == PlaceState.HELD, table.c.lease_until > backend.now())
    rows = connection.execute(select(table).where(*living).order_by(table.c.number)).all()
    if rows:
        raise HeldPlacesError(name, [_holder(row) for row in rows])


def _holder(row: Row[Any]) -> str:
    return f"place {row.number} by {row.worker} (process {row.pid} on {row.host})"


def _remove_rows(connection: Connection, token: str) -> None:
    for table in (tables.places, tables.events, tables.evaluations, tables.deliveries, tables.studies):
        connection.execute(delete(table).where(table.c.token == token))


def _artifacts(backend: Backend, study: optuna.Study) -> list[str]:
    """The random names of the files that Optuna's tables list for the study and its trials."""
    own = backend.optuna.get_study_system_attrs(study._study_id)
    found = [own, *(trial.system_attrs for trial in study.get_trials(deepcopy=False))]
    return [key.removeprefix(RECORD_PREFIX) for attrs in found for key in attrs if key.startswith(RECORD_PREFIX)]


def _remove_files(files: StudyFiles, artifacts: list[str]) -> None:
    folder = artifacts_folder(files.root)
    for artifact in artifacts:
        with contextlib.suppress(OSError):
            (folder / Path(artifact).name).unlink(missing_ok=True)
    shutil.rmtree(files.folder, ignore_errors=True)
