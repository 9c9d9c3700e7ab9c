"""Optuna's database storage, with fewer statements to create a trial and to report.

A request costs round trips. On SQLite, a creation of a dozen statements makes all other processes wait for the lock.
The tables' shape and the names from `_rdb` are private to Optuna (checked with 5.0.0). Only this module writes to
Optuna's tables. Unusual cases use Optuna's own code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    StudyDirectionModel,
    StudyModel,
    StudySystemAttributeModel,
    StudyUserAttributeModel,
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
)
from optuna.study import StudyDirection
from optuna.study.study import _SYSTEM_ATTR_METRIC_NAMES
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, bindparam, insert, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert

# The answer of `get_head_version`. To find it, Optuna imports all its migration scripts, which took most of the opening
# time.
NEWEST_TABLES = {"5.0.0": "v3.2.0.a"}

_ROWS = TrialIntermediateValueModel.__table__
_TRIALS = TrialModel.__table__
_IS_RUNNING = _TRIALS.c.state == literal(TrialState.RUNNING, _TRIALS.c.state.type)
_KEY = ["trial_id", "step"]
_VALUE = ["intermediate_value", "intermediate_value_type"]


class BatchingRDBStorage(RDBStorage):
    """As Optuna's RDBStorage."""

    def require_fitting_tables(self) -> None:
        """Refuse tables of another version of Optuna, as Optuna does.

        Raises:
            RuntimeError: they are older or newer than the Optuna that runs here.
        """
        if self.get_current_version() != NEWEST_TABLES.get(optuna.__version__):
            self._version_manager.check_table_schema_compatibility()

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Record the score of an epoch (`step`, from 0). It replaces an earlier one.

        Optuna reads the trial, reads the row and then writes. Here one statement checks and writes. If it wrote
        nothing, Optuna's own code runs and says why.

        Raises:
            UpdateFinishedTrialError: the trial has ended.
            KeyError: there is no such trial.
        """
        value, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(intermediate_value)
        row = {"trial": trial_id, "step": step, "intermediate_value": value, "intermediate_value_type": kind}
        with self.engine.begin() as connection:
            written = connection.execute(_UPSERTS[self.engine.dialect.name], row).first()
        if written is None:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> TrialModel:
        """Add a trial to the study within the session. Optuna calls it while it locks the study's row.

        Optuna writes a template's parameters one by one. Before each it looks for an earlier trial with another kind of
        distribution. A study's stored definition rules that out.
        """
        if template_trial is None or template_trial.state != TrialState.RUNNING or template_trial.intermediate_values:
            return super()._get_prepared_new_trial(study_id, template_trial, session)
        trial = super()._get_prepared_new_trial(study_id, None, session)
        trial.datetime_start = template_trial.datetime_start
        key = trial.trial_id
        params = [
            {
                "trial_id": key,
                "param_name": name,
                "param_value": distribution.to_internal_repr(template_trial.params[name]),
                "distribution_json": distribution_to_json(distribution),
            }
            for name, distribution in template_trial.distributions.items()
        ]
        for model, rows in (
            (TrialParamModel, params),
            (TrialUserAttributeModel, _attributes(key, template_trial.user_attrs)),
            (TrialSystemAttributeModel, _attributes(key, template_trial.system_attrs)),
        ):
            if rows:
                session.execute(insert(model), rows)
        return trial


def running_trials(connection: Connection, study_id: int) -> dict[int, int]:
    """The numbers of a study's trials that are RUNNING, and their ids. Optuna would read all that these have told."""
    query = select(_TRIALS.c.number, _TRIALS.c.trial_id).where(_TRIALS.c.study_id == study_id, _IS_RUNNING)
    return {row.number: row.trial_id for row in connection.execute(query)}


def _attributes(trial_id: Any, attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


def insert_study(connection: Connection, name: str, attributes: Mapping[str, Any], metric: str) -> None:
    """Create an Optuna study that minimises `metric`, in the caller's transaction: all of it or nothing.

    `optuna.create_study` and each attribute are separate transactions. A process that dies in between would leave a
    study that looks like another program's empty one.
    """
    statement = insert(StudyModel).values(study_name=name).returning(StudyModel.study_id)
    key = {"study_id": connection.execute(statement).scalar_one()}
    connection.execute(insert(StudyDirectionModel), key | {"direction": StudyDirection.MINIMIZE, "objective": 0})
    for model, values in (
        (StudyUserAttributeModel, attributes),
        (StudySystemAttributeModel, {_SYSTEM_ATTR_METRIC_NAMES: [metric]}),
    ):
        rows = [key | {"key": name, "value_json": json.dumps(value)} for name, value in values.items()]
        connection.execute(insert(model), rows)


def _upsert(insert: type[postgresql.Insert] | type[sqlite.Insert]) -> ReturningInsert[tuple[int]]:
    new = [bindparam(name, type_=_ROWS.c[name].type) for name in ("step", *_VALUE)]
    running = select(_TRIALS.c.trial_id, *new).where(_TRIALS.c.trial_id == bindparam("trial"), _IS_RUNNING)
    statement = insert(_ROWS).from_select([*_KEY, *_VALUE], running)
    replaced = {name: statement.excluded[name] for name in _VALUE}
    return statement.on_conflict_do_update(index_elements=_KEY, set_=replaced).returning(_ROWS.c.trial_id)


_UPSERTS = {"sqlite": _upsert(sqlite.Insert), "postgresql": _upsert(postgresql.Insert)}
