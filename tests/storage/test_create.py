"""`affinity-search create`."""

from conftest import Cli
from making import TINY

from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import load_study


def test_a_study_is_there_before_any_worker(sqlite_url: str, cli: Cli) -> None:
    created = cli("create", TINY, "--name", "mine", "--trials", "7", "--storage", sqlite_url)
    assert created.out == ""
    assert created.err.splitlines() == ["created study 'mine' with 7 places", f"study 'mine' is in {sqlite_url}"]
    stored = load_study(open_backend(sqlite_url, create=False), "mine")
    assert (Places.of(stored).counts().free, stored.optuna.trials) == (7, [])


def test_again_it_changes_only_what_is_asked_for(sqlite_url: str, cli: Cli) -> None:
    cli("create", TINY, "--storage", sqlite_url)
    again = cli("create", "tiny", "--storage", sqlite_url)
    assert again.err == f"study 'tiny' is in {sqlite_url}\n"
    more = cli("create", "tiny", "--trials", "9", "--storage", sqlite_url)
    assert "places raised from 4 to 9" in more.err


def test_where_its_trials_are_sent_can_be_changed(sqlite_url: str, cli: Cli) -> None:
    cli("create", TINY, "--storage", sqlite_url)
    changed = cli("create", "tiny", "--set", "tracking.to=mlflow=http://host:5000", "--storage", sqlite_url)
    assert "tracking changed from none to mlflow=http://host:5000" in changed.err
    stored = load_study(open_backend(sqlite_url, create=False), "tiny").spec
    assert stored.tracking is not None
    assert stored.tracking.to == "mlflow=http://host:5000"
    assert "[tracking]\nto = " in stored.to_toml()


def test_a_word_that_names_nothing(sqlite_url: str, cli: Cli) -> None:
    assert "toaster" in cli("create", "toaster", "--storage", sqlite_url, fails=True).refused()
