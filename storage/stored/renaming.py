"""Gives a study another name. Running workers go on: they use its id and its token."""

from __future__ import annotations

import json

from optuna.storages._rdb.models import StudyModel
from sqlalchemy import Connection, update

from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.errors import StorageError
from affinity_search.storage.study import load_study, log, optuna_study
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
        if optuna_study(backend, new) is not None:
            raise StorageError(f"{backend} holds a study {new!r} already; choose another name")
        named = study.spec.model_copy(update={"name": new})
        table = tables.studies

        def write(connection: Connection) -> None:
            connection.execute(update(StudyModel).where(StudyModel.study_name == old).values(study_name=new))
            definition = json.dumps(named.to_dict())
            connection.execute(update(table).where(table.c.token == study.token).values(definition=definition))
            log(connection, backend, study.token, "renamed", f"from {old}")

        backend.transaction(write)
