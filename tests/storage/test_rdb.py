"""Fewer statements do what Optuna's own do: every case read back by a plain RDBStorage, on both databases."""

import math
from datetime import datetime

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.database.optuna_storage.rdb import NEWEST_TABLES
from affinity_search.storage.errors import StorageError


def new_trial(storage: RDBStorage, name: str) -> int:
    study = optuna.create_study(storage=storage, study_name=name)
    return storage.create_new_trial(study._study_id)


def read(backend: Backend, trial_id: int) -> FrozenTrial:
    """By Optuna itself."""
    plain = RDBStorage(backend.secret_url)
    try:
        return plain.get_trial(trial_id)
    finally:
        plain.engine.dispose()


@pytest.mark.parametrize("value", [0.25, 0.0, 1e-300, math.inf, -math.inf, math.nan])
def test_any_number_comes_back(backend: Backend, value: float) -> None:
    trial_id = new_trial(backend.rdb, "one")
    backend.rdb.set_trial_intermediate_value(trial_id, 3, value)
    assert read(backend, trial_id).intermediate_values == {3: pytest.approx(value, rel=1e-6, nan_ok=True)}


def test_the_second_report_of_an_epoch_replaces_the_first(backend: Backend) -> None:
    trial_id = new_trial(backend.rdb, "one")
    for value in (0.5, math.nan, 0.25):
        backend.rdb.set_trial_intermediate_value(trial_id, 0, value)
        backend.rdb.set_trial_intermediate_value(trial_id, 1, 0.75)
    assert read(backend, trial_id).intermediate_values == {0: 0.25, 1: 0.75}


def test_another_trial_is_not_touched(backend: Backend) -> None:
    first, second = (new_trial(backend.rdb, name) for name in ("one", "two"))
    backend.rdb.set_trial_intermediate_value(first, 0, 0.5)
    assert read(backend, first).intermediate_values == {0: 0.5}
    assert read(backend, second).intermediate_values == {}


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_a_finished_trial_takes_no_report(backend: Backend, state: TrialState) -> None:
    trial_id = new_trial(backend.rdb, "one")
    backend.rdb.set_trial_intermediate_value(trial_id, 0, 0.5)
    backend.rdb.set_trial_state_values(trial_id, state, [0.5] if state == TrialState.COMPLETE else None)
    for step in (0, 1):
        with pytest.raises(UpdateFinishedTrialError):
            backend.rdb.set_trial_intermediate_value(trial_id, step, 0.1)
    assert read(backend, trial_id).intermediate_values == {0: 0.5}


def test_a_trial_that_does_not_exist_is_a_key_error(backend: Backend) -> None:
    with pytest.raises(KeyError):
        backend.rdb.set_trial_intermediate_value(4711, 0, 0.5)


def test_a_report_is_one_statement(backend: Backend) -> None:
    trial_id = new_trial(backend.rdb, "one")
    statements: list[str] = []
    event.listen(backend.rdb.engine, "before_cursor_execute", lambda *seen: statements.append(seen[2]))
    backend.rdb.set_trial_intermediate_value(trial_id, 0, 0.5)
    assert len(statements) == 1, statements
    assert statements[0].startswith("INSERT INTO trial_intermediate_values")


SPACE = {
    "lambda": FloatDistribution(0.01, 1),
    "sigma": FloatDistribution(1, 1000, log=True),
    "m": IntDistribution(1, 30),
}
PARAMS = {"lambda": 0.5, "sigma": 20.0, "m": 7}


def template(state: TrialState = TrialState.RUNNING, value: float | None = None) -> FrozenTrial:
    """A trial as `Draft.publish` hands it over."""
    began = datetime(2026, 1, 2, 3, 4, 5)
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=value,
        datetime_start=began,
        datetime_complete=began if state.is_finished() else None,
        params=dict(PARAMS),
        distributions=dict(SPACE),
        user_attrs={"made_by": {"place": 3, "versions": {"keras": "3"}}, "other": [1, None]},
        system_attrs={"rung": 1},
        intermediate_values={},
    )


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.COMPLETE])
def test_a_trial_from_a_template_is_as_optuna_makes_it(backend: Backend, state: TrialState) -> None:
    value = 0.25 if state == TrialState.COMPLETE else None
    plain = RDBStorage(backend.secret_url)
    ids = [
        storage.create_new_trial(
            optuna.create_study(storage=storage, study_name=name)._study_id, template(state, value)
        )
        for name, storage in {"ours": backend.rdb, "plain": plain}.items()
    ]
    ours, theirs = (vars(plain.get_trial(trial_id)) for trial_id in ids)
    plain.engine.dispose()
    assert ours.pop("_trial_id") != theirs.pop("_trial_id")
    assert ours == theirs
    assert ours["_user_attrs"] == template().user_attrs  # a comparison of two empty trials would prove nothing


def test_trials_of_a_study_are_numbered_from_zero(backend: Backend) -> None:
    studies = [optuna.create_study(storage=backend.rdb, study_name=name) for name in ("one", "two")]
    ids = [backend.rdb.create_new_trial(study._study_id, template()) for _ in range(3) for study in studies]
    assert [read(backend, trial_id).number for trial_id in ids] == [0, 0, 1, 1, 2, 2]


def test_a_creation_that_fails_leaves_nothing(backend: Backend) -> None:
    study = optuna.create_study(storage=backend.rdb, study_name="one")
    broken = template()
    broken.user_attrs["no json"] = object()
    with pytest.raises(TypeError):
        backend.rdb.create_new_trial(study._study_id, broken)
    assert study.get_trials() == []


def test_a_creation_takes_few_statements(backend: Backend) -> None:
    study = optuna.create_study(storage=backend.rdb, study_name="one")
    statements: list[str] = []
    event.listen(backend.rdb.engine, "before_cursor_execute", lambda *seen: statements.append(seen[2]))
    backend.rdb.create_new_trial(study._study_id, template())
    assert len(statements) <= 7, statements  # Optuna's own: 19


def test_the_newest_tables_are_those_that_optuna_knows(sqlite: Backend) -> None:
    """Of the Optuna that is pinned; another one is asked itself."""
    newest = sqlite.rdb.get_head_version()
    assert NEWEST_TABLES.get(optuna.__version__, newest) == newest


@pytest.mark.parametrize("known", [NEWEST_TABLES, {}], ids=["known", "asked"])
def test_newer_tables_are_refused(sqlite: Backend, known: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("affinity_search.storage.database.optuna_storage.rdb.NEWEST_TABLES", known)
    open_backend(sqlite.secret_url, create=False).close()
    with sqlite.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    with pytest.raises(StorageError, match="newer Optuna"):
        open_backend(sqlite.secret_url, create=False)
