"""A report in one statement does what Optuna's own three do: every case read back by Optuna, on both databases."""

import math

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from storage.backend import Backend


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
