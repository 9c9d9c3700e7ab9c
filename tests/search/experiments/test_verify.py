"""A recorded run is trained again: equal, different, and in what."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from sqlalchemy import text

from affinity_search.search.experiments import verify as verifying
from affinity_search.search.worker.setup import WorkerOptions, work
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.stored.planning import plan_final_runs
from affinity_search.storage.study import StoredStudy, history, load_study

STUDY = """
trials = 2

[data]
set = "features"
path = "vectors.npz"

[network]
kind = "mlp"
widths = [4]

[training]
epochs = 3
batch = 16
precision = "float32"

[pruner]
kind = "none"
"""


def write_vectors(file: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], [60, 30, 20])
    np.savez(file, features=rng.normal(size=(110, 6)) + labels[:, None], labels=labels)


@pytest.fixture
def searched(sqlite: Backend, tmp_path: Path) -> StoredStudy:
    from making import open_study

    write_vectors(tmp_path / "vectors.npz")
    (tmp_path / "vectors.toml").write_text(STUDY)
    study, _ = open_study(sqlite, str(tmp_path / "vectors.toml"))
    assert work(OneStudy(study), WorkerOptions("cpu", 2)) == 2
    return load_study(sqlite, "vectors")


def test_an_honest_record_is_equal_bit_for_bit(searched: StoredStudy, sqlite_url: str, cli: Cli) -> None:
    ran = cli("verify", "vectors", "--threads", "2", "--device", "cpu", "--storage", sqlite_url)
    assert "equal bit for bit" in ran.out
    exported = json.loads(cli("export", "vectors", "--storage", sqlite_url).out)
    assert exported["verified"].startswith("equal, by ")
    told = json.loads(
        cli("verify", "vectors", "--place", "1", "--device", "cpu", "--json", "--storage", sqlite_url).out
    )
    assert [(one["verdict"], one["greatest"], one["noise"]) for one in told] == [("equal", 0.0, None)]


def test_final_runs_too_and_the_history_says_who_opened_the_test_images(searched: StoredStudy) -> None:
    best = searched.optuna.best_trial
    final = plan_final_runs(searched, {best.number: best.params}, 2)
    assert work(OneStudy(final), WorkerOptions("cpu", 2)) == 2
    runs = verifying.runs_of(searched, None, None, final=True)
    assert [run.place.draw for run in runs] == [1, 2]
    found = [verifying.verify(run, WorkerOptions("cpu", 2)) for run in runs]
    assert [each.verdict for each in found] == ["equal", "equal"]
    assert any("to verify a final run" in event["text"] for event in history(final))


def _change(study: StoredStudy, statement: str, **values: Any) -> StoredStudy:
    with study.backend.engine.begin() as connection:
        assert connection.execute(text(statement), values).rowcount
    return load_study(study.backend, study.name)


def _score(study: StoredStudy) -> StoredStudy:
    """One digit of a score in the record."""
    return _change(
        study,
        "UPDATE trial_intermediate_values SET intermediate_value = intermediate_value - 0.01 WHERE step = 2",
    )


def _settings(study: StoredStudy) -> StoredStudy:
    """The rate that the trial says it was trained with, and not its place."""
    return _change(study, "UPDATE trial_params SET param_value = param_value * 1.5 WHERE param_name = 'learning_rate'")


def _versions(study: StoredStudy) -> StoredStudy:
    """A score, and a record of another Keras."""
    return _change(_score(study), "UPDATE trial_user_attributes SET value_json = replace(value_json, '\"3.', '\"2.')")


@pytest.mark.parametrize(
    ("tamper", "cause"),
    [
        (_score, "nothing else that is recorded differs"),
        (lambda study: _settings(_score(study)), "settings: the trial says"),
        (_versions, "versions: "),
    ],
)
def test_a_tampered_record_is_different_and_in_what(
    searched: StoredStudy, sqlite_url: str, cli: Cli, tamper: Callable[[StoredStudy], StoredStudy], cause: str
) -> None:
    tamper(searched)
    ran = cli("verify", "vectors", "--device", "cpu", "--threads", "2", "--storage", sqlite_url, fails=True)
    assert ran.code == 6
    assert "DIFFERENT" in ran.out
    assert cause in ran.out
    assert "between two trainings here 0" in ran.out
    exported = json.loads(cli("export", "vectors", "--storage", sqlite_url).out)
    assert exported["verified"].startswith("different, by ")


def test_other_data_are_a_difference(searched: StoredStudy, tmp_path: Path, sqlite_url: str, cli: Cli) -> None:
    write_vectors(tmp_path / "vectors.npz", seed=1)
    ran = cli("verify", "vectors", "--device", "cpu", "--storage", sqlite_url, fails=True)
    assert ran.code == 6
    assert "data: study 'vectors' has other vectors train images than those here" in ran.out


def test_noise_of_the_device_is_no_difference(searched: StoredStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose sums come out otherwise every time: here the new trainings, by a fake."""
    real, shifts = verifying._trained, iter([1e-4, -1e-4])

    def noisy(run: verifying.Run, trainer: Any) -> dict[str, float]:
        shift = next(shifts)
        return {key: value + shift for key, value in real(run, trainer).items()}

    monkeypatch.setattr(verifying, "_trained", noisy)
    (run,) = verifying.runs_of(searched, None, None, final=False)
    found = verifying.verify(run, WorkerOptions("cpu", 2))
    assert found.verdict == "within noise"
    assert found.greatest == pytest.approx(1e-4)
    assert found.noise == pytest.approx(2e-4)


def test_a_run_that_is_not_there(searched: StoredStudy, sqlite_url: str, cli: Cli) -> None:
    ran = cli("verify", "vectors", "--trial", "77", "--storage", sqlite_url, fails=True)
    assert ran.code == 1
    assert "no trial 77 with a score" in ran.err
    assert cli("verify", "vectors", "--final", "--storage", sqlite_url, fails=True).code == 1
    assert cli("verify", "vectors", "--trial", "0", "--place", "0", "--storage", sqlite_url, fails=True).code == 2
