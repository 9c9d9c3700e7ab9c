"""A study that the dashboard has renamed: the name that counts is Optuna's, everywhere."""

from making import make, open_study, train, trained
from optuna_dashboard import wsgi
from werkzeug.test import Client

from affinity_search.search.view.snapshot import take
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.results.export import export
from affinity_search.storage.study import load_study, study_names
from affinity_search.storage.trials.reading import reading_storage


def rename(backend: Backend, name: str) -> None:
    """As the dashboard does with --allow-edit: a copy under the new name, the old one deleted."""
    answer = Client(wsgi(reading_storage(backend))).post("/api/studies/1/rename", json={"study_name": name})
    assert answer.status_code == 201, answer.data


def test_status_and_export_say_the_new_name(backend: Backend) -> None:
    trained(backend, trials=2)
    rename(backend, "other")
    study = load_study(backend, "other")
    assert study_names(backend) == ["other"]
    assert (
        study.name == study.spec.name == study.refreshed().name == take(study).study == export(study).study == "other"
    )


def test_it_goes_on_under_the_new_name_with_its_places(sqlite: Backend) -> None:
    train(make(sqlite, trials=4), most=2)
    rename(sqlite, "other")
    study, _ = open_study(sqlite, "other", trials=6)
    assert study_names(sqlite) == ["other"]
    assert take(study).counts.total == 6
    assert train(study) == 4
    assert load_study(sqlite, "other").spec.trials == 6


def test_a_new_study_may_take_the_old_name(sqlite: Backend) -> None:
    trained(sqlite, trials=2)
    rename(sqlite, "other")
    make(sqlite, trials=3)
    assert study_names(sqlite) == ["other", "tiny"]
    assert (take(load_study(sqlite, "tiny")).counts.used, take(load_study(sqlite, "other")).counts.used) == (0, 2)
