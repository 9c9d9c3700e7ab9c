"""Where to send: addresses, as options, variables and in a study file."""

from pathlib import Path

import pytest
from conftest import Cli
from making import make, train, trained

from affinity_search.search.launch.tracking.addresses import TrackingError, mlflow_address, notify_url
from affinity_search.storage.database.backend import Backend

SECRET = "hooks-4711-geheim"
from sending import whole


class TestAddresses:
    @pytest.mark.parametrize(
        ("track", "line"),
        [
            ("wandb", "'wandb' given; allowed: mlflow, or mlflow=ADDRESS"),
            ("mlflow=", "'mlflow' given; allowed"),
            ("mlflow=databricks://x", "an MLflow address of kind 'databricks' is not supported"),
            ("mlflow=http://me:geheim@host:port", "the URL of the MLflow server cannot be read"),
            ("mlflow=sqlite://", "the SQLite address names no file; write sqlite:///FILE.db"),
            ("mlflow=me:geheim@host", "the MLflow address cannot be read"),
            ("mlflow", "--track mlflow needs an address: write --track mlflow=ADDRESS"),
        ],
    )
    def test_a_wrong_one_is_one_line_before_anything_trains(
        self, track: str, line: str, cli: Cli, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        refused = cli("launch", "digits", "--storage", sqlite_url, "--track", track, fails=True).refused()
        assert line in refused
        assert "geheim" not in refused
        assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()

    @pytest.mark.parametrize("url", ["ftp://host/geheim", "geheim", "https://", "https://h:99999/geheim", "http://a b"])
    def test_a_wrong_address_of_news_is_never_shown(self, url: str, cli: Cli, sqlite_url: str) -> None:
        refused = cli("launch", "digits", "--storage", sqlite_url, "--notify", url, fails=True).refused()
        assert "the address of --notify cannot be used" in refused
        assert "geheim" not in refused

    def test_a_dry_run_refuses_them_too(self, cli: Cli, sqlite_url: str) -> None:
        asked = ("compare", "digits-demo", "--dry-run", "--storage", sqlite_url, "--notify", "geheim")
        assert "the address of --notify cannot be used" in cli(*asked, fails=True).refused()

    def test_mlflow_s_own_variables_are_read(self) -> None:
        told = {"MLFLOW_TRACKING_URI": "https://host:5000/", "MLFLOW_TRACKING_USERNAME": "me"}
        found = mlflow_address("mlflow", told | {"MLFLOW_TRACKING_PASSWORD": "geheim"})
        assert (found.uri, found.user, found.password) == ("https://host:5000", "me", "geheim")
        own = mlflow_address("mlflow=http://you:p%40ss@other", told)
        assert (own.uri, own.user, own.password) == ("http://other", "you", "p@ss")

    def test_without_the_package_one_line_tells_how_to_get_it(
        self, cli: Cli, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        refused = cli("launch", "digits", "--storage", sqlite_url, "--track", "mlflow=x", fails=True).refused(78)
        assert "pip install 'affinity-search[mlflow]'" in refused

    def test_nowhere_to_send(self, sqlite: Backend, sqlite_url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        trained(sqlite)
        assert "nowhere to send to" in cli("track", "tiny", "--storage", sqlite_url, fails=True).refused()
        assert "no study 'no'" in cli("track", "no", "--storage", sqlite_url, "--to", "mlflow=/x", fails=True).refused()

    def test_a_url_with_blanks_around_it(self) -> None:
        assert notify_url(" 'https://host/x'\n") == "https://host/x"
        with pytest.raises(TrackingError):
            notify_url("https://hö.st")


class TestTable:
    def test_a_study_s_own_place_is_used_by_track(
        self, sqlite: Backend, sqlite_url: str, tmp_path: Path, cli: Cli
    ) -> None:
        study = make(sqlite, trials=1, overrides=[f"tracking.to=mlflow={tmp_path}/runs"])
        train(study)
        said = cli("track", "tiny", "--storage", sqlite_url).err
        assert said == f"2 runs sent to MLflow at {tmp_path}/runs\n"
        whole(tmp_path / "runs", study)
        assert cli("track", "tiny", "--storage", sqlite_url).err == "nothing is missing\n"
