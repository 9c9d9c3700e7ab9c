"""What the dashboard's page is told of trials: a note on each, attributes that are short, epochs from 1."""

from typing import Any

import pytest
from fake_objective import fake_scores
from making import attempt_at, holder, make, trained
from optuna_dashboard import get_note, save_note, wsgi
from werkzeug.test import Client

from affinity_search.search.training.results import EpochScore
from affinity_search.search.view.dashboard.readable import Readable
from affinity_search.search.worker.attempt import Attempt
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import Cause
from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.reading import reading_storage
from affinity_search.studies.data import SOURCES


def begin(study: StoredStudy, *macro_f1: float) -> Attempt:
    """An attempt at the next free place, with its epochs so far."""
    claim = Places.of(study).claim(holding := holder())
    assert claim is not None
    attempt = attempt_at(study, claim, holding, keras="3")
    for epoch, score in enumerate(macro_f1):
        attempt.report(EpochScore(epoch, 0.5, fake_scores(score), 0.1))
    return attempt


class Page:
    """A browser's requests to the dashboard of one database."""

    def __init__(self, backend: Backend) -> None:
        storage = reading_storage(backend)
        app = wsgi(storage)
        app.install(Readable(storage))
        self._client = Client(app)

    def study(self, query: str = "") -> dict[str, Any]:
        answer = self._client.get(f"/api/studies/1{query}")
        assert answer.status_code == 200
        return dict(answer.get_json())

    def notes(self) -> list[str]:
        return [trial["note"]["body"] for trial in self.study()["trials"]]


def test_every_way_to_end_has_its_note(backend: Backend) -> None:
    study = make(backend, trials=6, overrides=["training.epochs=5"])
    begin(study, 0.5, 0.8).complete()
    begin(study, 0.6).prune()
    begin(study, 0.2).fail("diverged", "the loss became NaN in `epoch 2`")
    given_back = begin(study, 0.3, 0.4)
    given_back.give_back("given back: the worker was asked to stop")
    begin(study)
    complete, pruned, failed, stopped, running = Page(backend).notes()
    assert complete.startswith("**Complete**, rank 1 of 2 with a score: macro F1 **0.8000** (holdout) at epoch 2")
    assert complete.count("minority |") == 5
    assert pruned.startswith("**Pruned** after 1 of 5 epochs, rank 2 of 2 with a score: macro F1 **0.6000** (holdout)")
    assert failed.startswith("**Failed** after 1 of 5 epochs: `the loss became NaN in 'epoch 2'`. Best macro F1")
    assert "Place 2 is used up." in failed
    assert stopped.startswith(
        "**Given back** after 2 of 5 epochs; this is no failure: `given back: the worker was asked to stop`. "
        "Best macro F1 until then: 0.4000. Trial 4 took up place 3 again."
    )
    assert running.startswith("**Running**, after 0 of 5 epochs.")
    for note in (complete, pruned, failed, stopped, running):
        assert "attempt 1, seed " in note
        assert "by `here-" in note


def test_a_place_that_waits_for_another_attempt_is_told(sqlite: Backend) -> None:
    study = make(sqlite)
    begin(study).retry_later(Cause.OUT_OF_MEMORY, "the card is full")
    (note,) = Page(sqlite).notes()
    assert note.startswith("**Failed** after 0 of 2 epochs: `the card is full`.")
    assert "Place 0 is free: the next worker takes it up again." in note


def test_attributes_are_short_and_named_in_the_tables(sqlite: Backend) -> None:
    study = make(sqlite, trials=2)
    begin(study, 0.12345678).complete()
    begin(study).fail("diverged", "NaN")
    answer = Page(sqlite).study()
    complete, failed = ({one["key"]: one["value"] for one in trial["user_attrs"]} for trial in answer["trials"])
    assert complete["macro_f1"] == "0.1235"
    assert (complete["best_epoch"], complete["epochs"], complete["place"]) == ("1", "1", "0")
    assert complete["versions"] == "keras 3"
    assert (failed["reason"], failed["cause"], failed["place"]) == ("NaN", "diverged", "1")
    assert all(len(value) < 100 for shown in (complete, failed) for value in shown.values())
    columns = {one["key"]: one["sortable"] for one in answer["union_user_attrs"]}
    assert columns.keys() >= (complete.keys() | failed.keys()) - {"versions"}
    assert columns["macro_f1"]
    assert not columns["worker"]
    assert not {"made_by", "scores"} & (columns.keys() | complete.keys() | failed.keys())


def test_a_value_is_short_enough_for_large_type(sqlite: Backend) -> None:
    study = make(sqlite, trials=1)
    begin(study, 0.12345678).complete()
    answer = Page(sqlite).study()
    assert [trial["values"] for trial in (*answer["trials"], *answer["best_trials"])] == [[0.876543]] * 2
    assert study.optuna.best_value == 1 - 0.12345678, "the database keeps all digits"


def test_epochs_count_from_one(sqlite: Backend) -> None:
    begin(make(sqlite), 0.1, 0.2).complete()
    (trial,) = Page(sqlite).study()["trials"]
    assert [score["step"] for score in trial["intermediate_values"]] == [1, 2]


def test_of_a_large_study_only_the_best_curves_are_drawn(sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(sqlite, trials=5)
    for macro_f1 in (0.2, 0.9):
        begin(study, macro_f1).complete()
    begin(study, 0.1).fail("diverged", "NaN")
    begin(study, 0.1)

    def curves() -> list[int]:
        return [len(trial["intermediate_values"]) for trial in Page(sqlite).study()["trials"]]

    assert curves() == [1, 1, 1, 1]
    monkeypatch.setattr("affinity_search.search.view.dashboard.readable.MOST_CURVES", 1)
    assert curves() == [0, 1, 0, 1], "the best, and the running one"


def test_a_poll_sees_how_a_trial_ended_and_ranks_follow(sqlite: Backend) -> None:
    study = make(sqlite)
    begin(study, 0.5).complete()
    other = begin(study, 0.6)
    page = Page(sqlite)
    assert page.notes()[1].startswith("**Running**")
    other.complete()
    page = Page(sqlite)  # optuna-dashboard itself keeps trials for two seconds
    assert page.study("?after=1")["trials"][0]["note"]["body"].startswith("**Complete**, rank 1 of 2")
    assert "rank 2 of 2" in page.notes()[0]


def test_a_note_that_somebody_wrote_stays_and_one_of_an_earlier_version_goes(sqlite: Backend) -> None:
    from optuna.trial import Trial

    study = trained(sqlite, trials=2)
    for trial, text in zip(study.optuna.trials, ("My favourite.", "**Rank 1** of the complete trials"), strict=True):
        save_note(Trial(study.optuna, trial._trial_id), text)
    kept, replaced = Page(sqlite).notes()
    assert kept == "My favourite."
    assert replaced.startswith("**Complete**, rank ")
    assert get_note(Trial(study.optuna, study.optuna.trials[1]._trial_id)).startswith("**Rank"), "nothing is written"


def test_trials_and_studies_of_others_are_shown_as_they_are(sqlite: Backend) -> None:
    import optuna

    study = trained(sqlite, trials=1)
    study.optuna.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"mine": [1, 2]}))
    theirs = optuna.create_study(study_name="theirs", storage=sqlite.optuna)
    theirs.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"made_by": {"me": 1}}))
    page = Page(sqlite)
    added = page.study()["trials"][1]
    assert (added["note"]["body"], added["user_attrs"]) == ("", [{"key": "mine", "value": "[1, 2]"}])
    (other,) = page._client.get("/api/studies/2").get_json()["trials"]
    assert other["user_attrs"] == [{"key": "made_by", "value": '{"me": 1}'}]


@pytest.mark.parametrize("name", SOURCES)
def test_every_data_set_names_its_classes(name: str) -> None:
    names = SOURCES[name].classes
    assert len(set(names)) == len(names) == SOURCES[name].n_classes


def test_notes_name_the_classes(sqlite: Backend) -> None:
    study = make(sqlite, overrides=["data={set='cifar10',minority=10,validation=0.2}", "network.widths=[2,2]"])
    begin(study, 0.5).complete()
    (note,) = Page(sqlite).notes()
    assert "| airplane | minority | 1 | 0.5000 |" in note
    assert "| truck | majority |" in note
