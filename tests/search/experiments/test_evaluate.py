"""`evaluate`: the only reader of the test set; fresh seeds, every score stored, every opening on record."""

import getpass
import json
import socket
from typing import Any

import fake_objective
import jsonschema
import pytest
from conftest import Cli
from making import ARTICLE, make, trained
from optuna_dashboard import get_note

from affinity_search.search.experiments.evaluate import evaluate_best, plan
from affinity_search.search.training.errors import DataError
from affinity_search.search.worker.setup import WorkerOptions
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.errors import NothingToExportError
from affinity_search.storage.results import evaluations
from affinity_search.storage.results.evaluations import latest_test, openings
from affinity_search.storage.results.export import export, schema_text, to_plain
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.seeds import trial_seed

pytestmark = pytest.mark.usefixtures("fake_training")


def evaluate(study: StoredStudy, top: int = 1, seeds: int = 3) -> list[dict[str, Any]]:
    return evaluate_best(study, WorkerOptions("cpu", 1), plan(study, top=top, seeds=seeds))


def test_mean_least_and_greatest_over_the_seeds(backend: Backend) -> None:
    study = trained(backend)
    (found,) = evaluate(study)
    test, params = found["test"], study.optuna.best_trial.params
    expected = [fake_objective.fake_macro_f1(params, seed, epoch=50) for seed in test["seeds"]]
    assert test["macro_f1"] == expected
    assert test["macro_f1_mean"] == pytest.approx(sum(expected) / 3)
    assert (test["macro_f1_least"], test["macro_f1_greatest"]) == (min(expected), max(expected))
    assert test["macro_f1_least"] < test["macro_f1_greatest"], "retrained, not scored thrice"
    assert len(test["micro_f1"]) == len(test["per_class_f1"]) == len(test["epochs"]) == 3
    assert found["params"] == params
    assert found["macro_f1"] == pytest.approx(1 - study.optuna.best_value)


def test_the_study_s_note_shows_the_test_score(sqlite: Backend) -> None:
    study = trained(sqlite)
    (found,) = evaluate(study)
    mean = found["test"]["macro_f1_mean"]
    assert f"- **test set**, trial {found['trial']}: macro F1 **{mean:.4f}**, mean of 3 retrainings (" in get_note(
        study.optuna
    )


def test_the_seeds_were_never_used_in_the_search(sqlite: Backend) -> None:
    (found,) = evaluate(trained(sqlite), seeds=20)
    assert len(set(found["test"]["seeds"])) == 20
    assert set(found["test"]["seeds"]).isdisjoint(trial_seed(0, place) for place in range(10_000))


def test_the_k_best_are_evaluated_in_order(sqlite: Backend) -> None:
    study = trained(sqlite)
    found = evaluate(study, top=2, seeds=1)
    assert [one["trial"] for one in found] == [one.trial for one in export(study, 2).top or []]
    assert [one["trial"] for one in openings(study)] == [one["trial"] for one in found]


def test_the_test_scores_are_exported_and_no_other_trial_s(backend: Backend) -> None:
    study = trained(backend)
    (found,) = evaluate(study)
    text = json.loads(json.dumps(to_plain(export(study, 2))))
    jsonschema.validate(text, json.loads(schema_text()))
    assert text["test"] == found["test"]
    assert [one["test"] for one in text["top"]] == [found["test"], None]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that were trained for an evaluation."""
    seeds: list[int] = []
    real = fake_objective.FakeTrainer.epochs

    def epochs(self: Any, params: dict[str, float | int], seed: int, **options: Any) -> Any:
        if self.test_is_open:
            seeds.append(seed)
        return real(self, params, seed, **options)

    monkeypatch.setattr("affinity_search.search.experiments.evaluate.StudyTrainer.epochs", epochs)
    return seeds


class TestStoredScores:
    def test_they_are_not_trained_again(self, backend: Backend, trainings: list[int]) -> None:
        study = trained(backend)
        evaluate(study, seeds=2)
        (more,) = evaluate(study, seeds=3)
        assert trainings == more["test"]["seeds"]
        assert len(set(trainings)) == 3
        assert latest_test(study, more["trial"]) == more["test"]
        assert len(openings(study)) == 2

    def test_fewer_seeds_train_nothing_and_open_nothing(self, sqlite: Backend, trainings: list[int]) -> None:
        study = trained(sqlite)
        (three,) = evaluate(study, seeds=3)
        (one,) = evaluate(study, seeds=1)
        assert len(trainings) == 3
        assert len(openings(study)) == 1
        assert one["test"]["macro_f1"] == three["test"]["macro_f1"][:1]
        assert latest_test(study, one["trial"]) == three["test"], "the export keeps all"

    def test_every_mean_of_a_table_is_of_the_same_seeds(self, sqlite: Backend) -> None:
        study = trained(sqlite)
        evaluate(study, seeds=3)
        both = evaluate(study, top=2, seeds=2)
        assert both[0]["test"]["seeds"] == both[1]["test"]["seeds"]

    def test_an_interrupted_evaluation_goes_on(
        self, sqlite: Backend, trainings: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = trained(sqlite)
        scored = fake_objective.FakeTrainer.score_test

        def interrupted(self: Any) -> dict[str, Any]:
            if len(trainings) == 2:
                raise KeyboardInterrupt
            return scored(self)

        monkeypatch.setattr("affinity_search.search.experiments.evaluate.StudyTrainer.score_test", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(study, seeds=3)
        monkeypatch.setattr("affinity_search.search.experiments.evaluate.StudyTrainer.score_test", scored)
        (found,) = evaluate(study, seeds=3)
        assert len(found["test"]["macro_f1"]) == 3
        assert trainings == [*found["test"]["seeds"][:2], *found["test"]["seeds"][1:]], "the first seed once"


class TestOpenings:
    def test_who_and_when(self, backend: Backend) -> None:
        study = trained(backend)
        before = backend.time()
        evaluate(study)
        (opening,) = openings(study)
        assert opening["opened_by"] == f"{getpass.getuser()}@{socket.gethostname()}"
        assert before <= opening["opened_at"] <= backend.time()
        assert opening["finished"]

    def test_recorded_before_it_is_read(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        study = trained(sqlite)

        def unreadable(objective: object) -> None:
            assert len(openings(study)) == 1
            raise DataError("the disk is bad")

        monkeypatch.setattr("affinity_search.search.experiments.evaluate.StudyTrainer.open_test", unreadable)
        with pytest.raises(DataError):
            evaluate(study)
        (opening,) = openings(study)
        assert not opening["finished"]
        assert latest_test(study, opening["trial"]) is None

    def test_a_machine_without_the_training_images_opens_nothing(
        self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = trained(sqlite)

        def absent(*arguments: object, **options: object) -> None:
            raise DataError("no such folder")

        monkeypatch.setattr("affinity_search.search.experiments.evaluate.StudyTrainer", absent)
        with pytest.raises(DataError):
            evaluate(study)
        assert openings(study) == []

    def test_what_was_scored_before_an_interruption_is_kept(
        self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = trained(sqlite)
        real, done = fake_objective.FakeTrainer.epochs, []

        def interrupted(self: object, *arguments: Any, **options: Any) -> Any:
            if done:
                raise KeyboardInterrupt
            done.append(True)
            return real(self, *arguments, **options)

        monkeypatch.setattr("affinity_search.search.experiments.evaluate.StudyTrainer.epochs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(study, seeds=3)
        (opening,) = openings(study)
        kept = latest_test(study, opening["trial"])
        assert not opening["finished"]
        assert kept is not None
        assert len(kept["macro_f1"]) == len(kept["seeds"]) == 1

    def test_a_user_without_a_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nameless() -> str:
            raise KeyError("getpwuid(): uid not found: 12345")

        monkeypatch.setattr(getpass, "getuser", nameless)
        assert evaluations.opened_by() == f"unknown@{socket.gethostname()}"


class TestTheCommand:
    def test_the_table_and_the_status_name_protocol_and_opening(
        self, sqlite: Backend, sqlite_url: str, cli: Cli
    ) -> None:
        trained(sqlite, overrides=ARTICLE)
        shown = cli("evaluate", "tiny", "--seeds", "2", "--storage", sqlite_url)
        assert shown.out.startswith("test macro F1 (article)")
        assert "on the test set (article)" in shown.err
        status = cli("status", "tiny", "--storage", sqlite_url).out
        assert f"by {getpass.getuser()}@{socket.gethostname()}" in status
        assert "not finished" not in status

    def test_json(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        trained(sqlite, overrides=ARTICLE)
        (found,) = json.loads(cli("evaluate", "tiny", "--seeds", "1", "--json", "--storage", sqlite_url).out)
        assert found["test"]["protocol"] == "article"
        status = json.loads(cli("status", "tiny", "--json", "--storage", sqlite_url).out)
        assert [one["trial"] for one in status["test_openings"]] == [found["trial"]]

    def test_nothing_finished_opens_nothing(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        study = make(sqlite)
        assert "no finished trial" in cli("evaluate", "tiny", "--storage", sqlite_url, fails=True).refused()
        with pytest.raises(NothingToExportError):
            evaluate(study)
        assert openings(study) == []

    def test_the_size_is_told_before_the_work(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        trained(sqlite)
        first = cli("evaluate", "tiny", "--top", "2", "--seeds", "2", "--storage", sqlite_url).err
        assert "2 trials × 2 seeds: 4 to train" in first
        assert "warning: the test set is opened for 2 trials" in first
        assert "4/4: trial" in first
        again = cli("evaluate", "tiny", "--top", "9", "--seeds", "2", "--storage", sqlite_url).err
        assert "the study has 4 finished trials, fewer than --top 9" in again
        assert "4 trials × 2 seeds: 4 to train" in again
        assert "4 scores of earlier evaluations stay" in again

    def test_very_many_trainings_are_asked_about(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        study = trained(sqlite)
        ran = cli("evaluate", "tiny", "--seeds", "101", "--storage", sqlite_url, fails=True)
        assert ran.code == 2
        assert "101 trainings are more than 100" in ran.err
        assert openings(study) == []
        assert "101 to train" in cli("evaluate", "tiny", "--seeds", "101", "--yes", "--storage", sqlite_url).err
        assert cli("evaluate", "tiny", "--seeds", "100000000", "--storage", sqlite_url, fails=True).code == 2
