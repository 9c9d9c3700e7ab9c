"""Gives a study another name, and its final runs with it. Running workers go on: they use its id and its token."""

from __future__ import annotations

import json

from optuna.storages._rdb.models import StudyModel
from sqlalchemy import Connection, update

from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.errors import StorageError
from affinity_search.storage.stored.planning import SUFFIX
from affinity_search.storage.study import StoredStudy, load_study, log, optuna_study, study_by
from affinity_search.studies.model.limits import name_mistake


def rename(backend: Backend, old: str, new: str) -> None:
    """Change the name in Optuna's table and in our definition, in one transaction.

    Raises:
        StorageError: there is no such study, or the new name is taken or not allowed.
    """
    mistake = name_mistake(new)
    if mistake:
        raise StorageError(f"the new name {mistake}")
    with backend.exclusive():
        study = load_study(backend, old)
        finals = [final for final in study_by(backend, search=study.token) if final.name.startswith(old + SUFFIX)]
        renamed = {old: study, **{final.name: final for final in finals}}
        names = {name: new + name.removeprefix(old) for name in renamed}
        for name in names.values():
            if optuna_study(backend, name) is not None:
                raise StorageError(f"{backend} holds a study {name!r} already; choose another name")

        def write(connection: Connection) -> None:
            for name, each in renamed.items():
                _rename(connection, each, names[name])

        backend.transaction(write)


def _rename(connection: Connection, study: StoredStudy, new: str) -> None:
    definition = json.dumps(study.spec.model_copy(update={"name": new}).to_dict())
    table = tables.studies
    connection.execute(update(StudyModel).where(StudyModel.study_name == study.name).values(study_name=new))
    connection.execute(update(table).where(table.c.token == study.token).values(definition=definition))
    log(connection, study.backend, study.token, "renamed", f"from {study.name}")
