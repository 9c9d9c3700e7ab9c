"""Final runs: the best trials trained again on fresh draws. Only they read the test set; openings are on record."""

import getpass
import json
import socket
from typing import Any

import fake_objective
import jsonschema
import numpy as np
import pytest
from conftest import Cli
from making import ARTICLE, make, train, trained
from optuna_dashboard import get_note
from sqlalchemy import insert

from affinity_search.search.experiments.evaluate import plan, results
from affinity_search.search.view.publishing import write_note
from affinity_search.search.worker.exits import Exit
from affinity_search.storage.database import runtime, tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.errors import NothingToExportError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.results.evaluations import latest_test, openings
from affinity_search.storage.results.export import export, schema_text, to_plain
from affinity_search.storage.results.final_runs import FinalRuns, final_study
from affinity_search.storage.study import StoredStudy, study_names
from affinity_search.storage.trials.seeds import draw_seed, trial_seed

pytestmark = pytest.mark.usefixtures("fake_training")


def evaluate(study: StoredStudy, top: int = 1, draws: int = 3) -> list[dict[str, Any]]:
    """As the command, with one worker in this process."""
    planned = plan(study, top=top, draws=draws)
    if planned.trainings:
        train(planned.made())
    return results(planned)


def test_mean_least_and_greatest_over_the_draws(backend: Backend) -> None:
    study = trained(backend)
    (found,) = evaluate(study)
    test, params = found["test"], study.optuna.best_trial.params
    assert test["draws"] == [1, 2, 3]
    assert test["seeds"] == [draw_seed(0, draw) for draw in (1, 2, 3)]
    expected = [fake_objective.fake_macro_f1(params, seed, epoch=50) for seed in test["seeds"]]
    assert test["macro_f1"] == pytest.approx(expected)
    assert test["macro_f1_mean"] == pytest.approx(sum(expected) / 3)
    assert (test["macro_f1_least"], test["macro_f1_greatest"]) == pytest.approx((min(expected), max(expected)))
    assert len(test["micro_f1"]) == len(test["per_class_f1"]) == len(test["epochs"]) == 3
    assert found["params"] == params
    assert found["macro_f1"] == pytest.approx(1 - study.optuna.best_value)
    over = found["interval"]
    assert (over.mean, over.n) == (pytest.approx(np.mean(expected)), 3)
    assert over.low < min(expected)


def test_the_dashboard_s_note_tells_of_them(sqlite: Backend) -> None:
    study = trained(sqlite)
    (found,) = evaluate(study)
    write_note(study)
    told = f"- **test set**, trial {found['trial']}: macro F1 **{found['test']['macro_f1_mean']:.4f}**, mean of 3"
    assert told in get_note(study.optuna)


def test_the_seeds_were_never_used_in_the_search(sqlite: Backend) -> None:
    (found,) = evaluate(trained(sqlite), draws=20)
    assert len(set(found["test"]["seeds"])) == 20
    assert set(found["test"]["seeds"]).isdisjoint(trial_seed(0, place) for place in range(10_000))


def test_each_trial_is_judged_on_the_same_draws(sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[int, int]] = []
    real = fake_objective.FakeTrainer.epochs

    def epochs(self: Any, params: dict[str, float | int], seed: int, **options: Any) -> Any:
        used.append((self.draw, seed))
        return real(self, params, seed, **options)

    study = trained(sqlite)
    monkeypatch.setattr("fake_objective.FakeTrainer.epochs", epochs)
    found = evaluate(study, top=2, draws=2)
    assert sorted(used) == sorted(2 * [(draw, draw_seed(0, draw)) for draw in (1, 2)])
    assert found[0]["test"]["seeds"] == found[1]["test"]["seeds"]


def test_they_do_not_teach_the_search(sqlite: Backend) -> None:
    study = trained(sqlite)
    before = len(study.optuna.trials), Places.of(study).counts()
    evaluate(study, top=2, draws=2)
    assert (len(study.optuna.trials), Places.of(study).counts()) == before
    assert study_names(sqlite) == ["tiny", "tiny.final"]
    final = final_study(study)
    assert final is not None
    assert final.fingerprint == study.fingerprint


class TestRanking:
    def test_the_best_mean_is_first_and_the_tied_are_named(self, sqlite: Backend) -> None:
        found = evaluate(trained(sqlite), top=4, draws=6)
        means = [one["interval"].mean for one in found]
        assert means == sorted(means, reverse=True)
        assert found[0]["tied"] is True
        assert all(one["tied"] in (True, False) for one in found)

    def test_with_few_draws_nobody_can_tell(self, sqlite: Backend) -> None:
        assert [one["tied"] for one in evaluate(trained(sqlite), top=2, draws=4)] == [None, None]

    def test_the_export_carries_it(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        study = trained(sqlite)
        found = evaluate(study, top=2, draws=5)
        exported = json.loads(cli("export", "tiny", "--storage", sqlite_url).out)
        jsonschema.validate(exported, json.loads(schema_text()))
        told = [(one["trial"], one["draws"], one["tied"]) for one in exported["contenders"]]
        assert told == [(one["trial"], 5, one["tied"]) for one in found]
        first, over = exported["contenders"][0], found[0]["interval"]
        assert (first["mean"], first["low"], first["high"]) == pytest.approx((over.mean, over.low, over.high))


def test_the_test_scores_are_exported_and_no_other_trial_s(backend: Backend) -> None:
    study = trained(backend)
    (found,) = evaluate(study)
    text = json.loads(json.dumps(to_plain(export(study, 2))))
    jsonschema.validate(text, json.loads(schema_text()))
    assert text["test"] == found["test"]
    assert [one["test"] for one in text["top"]] == [found["test"], None]


class TestStoredScores:
    def test_they_are_not_trained_again(self, backend: Backend) -> None:
        study = trained(backend)
        (two,) = evaluate(study, draws=2)
        assert plan(study, top=1, draws=3).trainings == 1
        (three,) = evaluate(study, draws=3)
        assert three["test"]["macro_f1"][:2] == two["test"]["macro_f1"]
        final = final_study(study)
        assert final is not None
        assert [trial.number for trial in final.optuna.trials] == [0, 1, 2], "each run was trained once"
        assert latest_test(study, three["trial"]) == three["test"]

    def test_fewer_draws_train_nothing(self, sqlite: Backend) -> None:
        study = trained(sqlite)
        (three,) = evaluate(study, draws=3)
        assert plan(study, top=1, draws=1).trainings == 0
        (one,) = evaluate(study, draws=1)
        assert one["test"]["macro_f1"] == three["test"]["macro_f1"][:1]
        assert latest_test(study, one["trial"]) == three["test"], "the export keeps all"

    def test_an_interrupted_evaluation_trains_what_is_missing(self, sqlite: Backend) -> None:
        study = trained(sqlite)
        final = plan(study, top=1, draws=3).made()
        train(final, most=2)
        assert not openings(study)[0]["finished"]
        assert plan(study, top=1, draws=3).trainings == 1
        (found,) = evaluate(study, draws=3)
        assert len(found["test"]["macro_f1"]) == 3
        assert len(final.optuna.trials) == 3
        assert openings(study)[0]["finished"]

    def test_a_run_that_failed_stays_so_and_is_told(
        self, sqlite: Backend, sqlite_url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = trained(sqlite)
        monkeypatch.setenv("FAKE_DIVERGING", str(draw_seed(0, 2)))
        (found,) = evaluate(study, draws=3)
        assert found["test"]["draws"] == [1, 3]
        again = plan(study, top=1, draws=3)
        assert (again.trainings, again.failed) == (0, 1)
        assert "1 run failed earlier" in cli("evaluate", "tiny", "--draws", "3", "--storage", sqlite_url).err

    def test_scores_of_an_earlier_version_are_read(self, sqlite: Backend) -> None:
        study = trained(sqlite)
        best = export(study).trial
        scores = [fake_objective.fake_scores(each).to_dict() | {"best_epoch": 2} for each in (0.5, 0.7)]
        row = {"token": study.token, "trial": best, "opened_at": 7.0, "opened_by": "me@there", "seeds": "[11, 12]"}
        with sqlite.engine.begin() as connection:
            connection.execute(insert(tables.evaluations).values(**row, scores=json.dumps(scores)))
        test = to_plain(export(study))["test"]
        assert (test["macro_f1"], test["seeds"], test["draws"]) == ([0.5, 0.7], [11, 12], [])
        assert (test["opened_by"], test["opened_at"]) == ("me@there", 7.0)
        jsonschema.validate(to_plain(export(study)), json.loads(schema_text()))
        (found,) = evaluate(study, draws=1)
        assert found["test"]["draws"] == [1], "final runs count before them"
        assert [one["opened_by"] for one in openings(study)] == [
            "me@there",
            f"{getpass.getuser()}@{socket.gethostname()}",
        ]


class TestKills:
    def test_a_run_goes_on_with_the_best_epoch_s_weights(self, sqlite: Backend) -> None:
        """The fake's later epochs are better. What is tested here is what a checkpoint holds."""
        from making import attempt_at, holder

        from affinity_search.search.training.checkpoints import load

        study = trained(sqlite)
        final = plan(study, top=1, draws=1).made()
        places = Places.of(final)
        claim = places.claim(holder("first"))
        assert claim is not None
        attempt = attempt_at(final, claim, holder("first"))
        trainer: Any = fake_objective.FakeTrainer(fake_objective.UNCLAIMED, final.spec, "float32", None)
        trainer.open_test()
        with pytest.raises(InterruptedError):
            attempt.train(trainer, lambda: False, _interrupts_after(2))
        attempt.give_back("stopped")
        state = load(attempt._checkpoint.path, attempt._identity)
        assert state is not None
        assert len(state.epochs) == 2
        assert state.best is not None
        (row,) = places.rows()
        assert (row.state, row.draw, row.params) == (PlaceState.FREE, 1, claim.params)


def _interrupts_after(epochs: int) -> Any:
    seen: list[object] = []

    def on_epoch(score: object) -> None:
        seen.append(score)
        if len(seen) == epochs:
            raise InterruptedError

    return on_epoch


class TestOpenings:
    def test_who_and_when(self, backend: Backend) -> None:
        study = trained(backend)
        before = backend.time()
        evaluate(study)
        (opening,) = openings(study)
        assert opening["opened_by"] == f"{getpass.getuser()}@{socket.gethostname()}"
        assert before <= opening["opened_at"] <= backend.time()
        assert opening["finished"]

    def test_a_plan_opens_nothing(self, sqlite: Backend) -> None:
        study = trained(sqlite)
        plan(study, top=1, draws=3).made()
        assert openings(study) == []
        assert [run.scores for run in FinalRuns.of(study).runs] == [None, None, None]

    def test_a_user_without_a_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nameless() -> str:
            raise KeyError("getpwuid(): uid not found: 12345")

        monkeypatch.setattr(getpass, "getuser", nameless)
        assert runtime.user_at_host() == f"unknown@{socket.gethostname()}"


@pytest.mark.usefixtures("fake_workers")
class TestTheCommand:
    def test_the_table_and_the_status_name_protocol_and_opening(
        self, sqlite: Backend, sqlite_url: str, cli: Cli
    ) -> None:
        trained(sqlite, overrides=ARTICLE)
        shown = cli("evaluate", "tiny", "--draws", "2", "--workers", "2", "--storage", sqlite_url)
        assert shown.out.startswith("test macro F1 (article)")
        status = cli("status", "tiny", "--storage", sqlite_url).out
        assert f"by {getpass.getuser()}@{socket.gethostname()}" in status
        assert "not finished" not in status

    def test_the_old_name_of_the_option_and_json(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        trained(sqlite, overrides=ARTICLE)
        (found,) = json.loads(cli("evaluate", "tiny", "--seeds", "1", "--json", "--storage", sqlite_url).out)
        assert found["test"]["protocol"] == "article"
        status = json.loads(cli("status", "tiny", "--json", "--storage", sqlite_url).out)
        assert [one["trial"] for one in status["test_openings"]] == [found["trial"]]

    def test_nothing_finished_plans_nothing(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        study = make(sqlite)
        assert "no finished trial" in cli("evaluate", "tiny", "--storage", sqlite_url, fails=True).refused()
        with pytest.raises(NothingToExportError):
            evaluate(study)
        assert study_names(sqlite) == ["tiny"]

    def test_the_size_is_told_before_the_work(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        trained(sqlite)
        first = cli("evaluate", "tiny", "--top", "2", "--draws", "2", "--storage", sqlite_url).err
        assert "2 trials × 2 draws: 4 to train" in first
        assert "warning: the test set is opened for 2 trials" in first
        again = cli("evaluate", "tiny", "--top", "9", "--draws", "2", "--storage", sqlite_url).err
        assert "the study has 4 finished trials, fewer than --top 9" in again
        assert "4 trials × 2 draws: 4 to train" in again
        assert "4 scores of earlier runs stay" in again

    def test_very_many_trainings_are_asked_about(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        study = trained(sqlite)
        ran = cli("evaluate", "tiny", "--draws", "101", "--storage", sqlite_url, fails=True)
        assert ran.code == 2
        assert "101 trainings are more than 100" in ran.err
        assert final_study(study) is None
        assert cli("evaluate", "tiny", "--draws", "100000000", "--storage", sqlite_url, fails=True).code == 2

    def test_a_search_without_a_device_for_it(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        study = trained(sqlite)
        ran = cli("evaluate", "tiny", "--devices", "gpu:7", "--storage", sqlite_url, fails=True)
        assert ran.code == Exit.UNFIT_DEVICE
        assert "no GPU found" in ran.err
        assert final_study(study) is None
