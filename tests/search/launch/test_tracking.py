"""The collector with a real MLflow (folder and SQLite) and real processes; only training is fake."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Start
from making import attempt_at, holder, make, reported, train, trained
from optuna.trial import TrialState
from sqlalchemy import insert, update
from watching import FakeClock

from affinity_search.search.launch.tracking import on_mlflow
from affinity_search.search.view.pictures import Album
from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.files import StudyFiles, default_root
from affinity_search.storage.places.claims import Places

SECRET = "hooks-4711-geheim"
from sending import all_runs, client, collector, runs, steps, whole


@pytest.fixture(scope="session")
def _ready_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables: to make them takes it three seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "ready.db"
    client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(params=["folder", "sqlite"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "runs")
    shutil.copy(request.getfixturevalue("_ready_mlflow"), tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


class TestRuns:
    def test_every_finished_trial_is_a_run_with_its_epochs(self, sqlite: Backend, where: str) -> None:
        study = trained(sqlite)
        first = collector(study, where)
        first.send_all()
        assert (first.posts[0].sent, first.unsent) == (5, 0)  # and the study's own
        whole(where, study)
        (run, *_) = (run for key, run in runs(where).items() if key == "place/2")
        place = Places.of(study).rows()[2]
        assert place.params is not None
        assert place.value is not None
        assert {key: float(run.data.params[key]) for key in place.params} == place.params
        assert run.data.metrics["score"] == pytest.approx(1 - place.value)
        assert {run.data.tags[f"affinity_search.{key}"] for key in ("state", "study")} == {"complete", "tiny"}
        assert client(where).get_experiment(run.info.experiment_id).name == "tiny"

    def test_a_second_collector_sends_nothing_again(self, sqlite: Backend, where: str) -> None:
        study = trained(sqlite)
        collector(study, where).send_all()
        before = {key: run.info.run_id for key, run in runs(where, all_of_them=True).items()}
        again = collector(study, where)
        again.send_all()
        assert again.posts[0].sent == 0
        assert {key: run.info.run_id for key, run in runs(where, all_of_them=True).items()} == before

    def test_what_a_ledger_has_forgotten_is_found_in_mlflow(self, sqlite: Backend, where: str) -> None:
        """As after a database that was put back from a copy, or with --again."""
        study = trained(sqlite)
        collector(study, where).send_all()
        before = {key: run.info.run_id for key, run in runs(where).items()}
        lost = before.pop("place/1")
        client(where).delete_run(lost)
        again = collector(study, where)
        again.forget()
        again.send_all()
        whole(where, study)
        after = {key: run.info.run_id for key, run in runs(where).items()}
        assert after.pop("place/1") != lost
        assert after == before

    def test_a_study_with_more_places_gets_one_new_run_of_its_own(self, sqlite: Backend, tmp_path: Path) -> None:
        study = trained(sqlite, trials=2)
        collector(study, tmp_path / "runs").send_all()
        train(make(sqlite, trials=3))
        collector(study, tmp_path / "runs").send_all()
        whole(tmp_path / "runs", study)
        own = runs(tmp_path / "runs", all_of_them=True)["study"]
        assert own.data.tags["affinity_search.trials"] == "3"
        export = Path(client(tmp_path / "runs").download_artifacts(own.info.run_id, "export.json"))
        assert json.loads(export.read_text())["counts"]["used"] == 3

    def test_epochs_have_all_scores_where_the_files_are(self, sqlite: Backend, tmp_path: Path) -> None:
        study = make(sqlite, trials=1)
        files, by = StudyFiles(default_root(sqlite.url), study.token), holder()
        album = Album(files, (1,) * 10, print)
        claim = Places.of(study).claim(by)
        assert claim is not None
        reported(attempt_at(study, claim, by, album), 0.5, 0.4).complete()
        collector(study, tmp_path / "runs").send_all()
        run = runs(tmp_path / "runs")["place/0"]
        assert steps(tmp_path / "runs", run, "macro_f1") == [(1, 0.5), (2, 0.4)]
        assert [round(value, 6) for _, value in steps(tmp_path / "runs", run)] == [0.5, 0.5]
        assert steps(tmp_path / "runs", run, "loss") == [(1, 0.5), (2, 0.5)]
        names = {each.path for each in client(tmp_path / "runs").list_artifacts(run.info.run_id)}
        assert {"study.toml", "epochs.json", "learning-curve.png"} <= names

    def test_pruned_and_failed_trials_are_sent_and_tell_why(self, sqlite: Backend, tmp_path: Path) -> None:
        study = make(sqlite, trials=2)
        for end in ("prune", "fail"):
            by = holder()
            claim = Places.of(study).claim(by)
            assert claim is not None
            attempt = reported(attempt_at(study, claim, by), 0.5)
            attempt.prune() if end == "prune" else attempt.fail("diverged", "the loss is NaN in epoch 2")
        collector(study, tmp_path / "runs").send_all()
        whole(tmp_path / "runs", study)
        found = runs(tmp_path / "runs")
        assert found["place/0"].data.tags["affinity_search.state"] == "pruned"
        assert found["place/1"].data.tags["affinity_search.reason"] == "the loss is NaN in epoch 2"

    def test_a_renamed_study_keeps_its_experiment(self, sqlite: Backend, tmp_path: Path, cli: Cli) -> None:
        study = make(sqlite, trials=2)
        train(study, most=1)
        collector(study, tmp_path / "runs").send_all()
        cli("rename", "tiny", "big", "--storage", str(sqlite.url))
        train(study)
        collector(study, tmp_path / "runs").send_all()
        assert len({run.info.experiment_id for run in runs(tmp_path / "runs").values()}) == 1
        whole(tmp_path / "runs", study)


class TestNothingTwice:
    def test_two_collectors_at_once_share_the_work(
        self, backend: Backend, database_url: str, start: Start, tmp_path: Path
    ) -> None:
        study = trained(backend, trials=8)
        options = ("tiny", "--to", f"mlflow={tmp_path}/runs")
        both = [start("track", *options, AFFINITY_SEARCH_STORAGE=database_url) for _ in range(2)]
        assert [one.ended() for one in both] == [0, 0]
        whole(tmp_path / "runs", study)
        assert len(runs(tmp_path / "runs", all_of_them=True)) == 9

    @pytest.mark.long
    def test_a_collector_that_is_killed_in_the_middle_of_a_run(
        self, sqlite: Backend, sqlite_url: str, start: Start, tmp_path: Path
    ) -> None:
        study = trained(sqlite, trials=6)
        options = ("tiny", "--to", f"mlflow={tmp_path}/runs", "--storage", sqlite_url, "--lease-s", "1")
        halves = 0
        for _ in range(3):
            before = len(_run_folders(tmp_path / "runs"))
            victim = start("track", *options)
            while len(_run_folders(tmp_path / "runs")) == before:
                assert victim.process.poll() is None, victim.said
            os.kill(victim.process.pid, signal.SIGKILL)
            assert victim.ended() == -signal.SIGKILL
            halves += sum(not _is_finished(about) for about in _run_folders(tmp_path / "runs"))
        assert halves, "no kill hit the middle of a run"
        assert start("track", *options).ended() == 0
        whole(tmp_path / "runs", study)
        assert len(all_runs(tmp_path / "runs")) == 7

    def test_half_written_runs_are_cleared_away(self, sqlite: Backend, tmp_path: Path) -> None:
        """In a folder MLflow writes file by file. Killed in between, it leaves what makes it refuse every search."""
        study = make(sqlite)
        train(study)
        collector(study, tmp_path / "runs").look()
        first, second, third, fourth = (_folder_of(tmp_path / "runs", f"place/{number}") for number in range(4))
        (first / "meta.yaml").write_text("")
        shutil.rmtree(first / "metrics")
        (second / "metrics" / "score").write_text("")
        for part in ("tags", "params", "metrics"):
            shutil.rmtree(third / part)
        about = third / "meta.yaml"
        about.write_text(about.read_text().replace("status: 3", "status: 1"))
        (fourth / "meta.yaml").write_text("")  # killed when it ended the run
        for run in (first, second, fourth):
            os.utime(run, (1.0, 1.0))
        again = collector(study, tmp_path / "runs")
        again.forget()
        with sqlite.engine.begin() as connection:  # as after the kill: they were begun
            lost = {"target": again.posts[0].ledger._target, "sent": 0, "lease": "", "lease_until": 0.0, "at": 0.0}
            begun = [{"token": study.token, "item": f"place/{number}"} | lost for number in range(4)]
            connection.execute(insert(tables.deliveries), begun)
        again.send_all()
        whole(tmp_path / "runs", study)
        assert len(all_runs(tmp_path / "runs")) == 5

    def test_one_that_slept_through_its_lease_leaves_no_second_run(self, sqlite: Backend, tmp_path: Path) -> None:
        """It is stopped right before it makes the run; another sends the trial; then it wakes up."""
        study = trained(sqlite, trials=1)
        slow, fast = (collector(study, tmp_path / "runs", lease_s=0.01) for _ in range(2))
        real = slow.posts[0].target._client = client(tmp_path / "runs")  # type: ignore[attr-defined]
        create = real.create_run

        def sleep_first(*args: Any, **kwargs: Any) -> Any:
            real.create_run = create
            time.sleep(0.02)
            fast.send_all()
            return create(*args, **kwargs)

        real.create_run = sleep_first
        slow.look()
        whole(tmp_path / "runs", study)
        assert fast.posts[0].sent >= 1

    def test_the_ledger_goes_with_its_study(self, sqlite: Backend, sqlite_url: str, tmp_path: Path, cli: Cli) -> None:
        collector(trained(sqlite), tmp_path / "runs").send_all()
        assert _ledger(sqlite_url)
        cli("delete", "tiny", "--yes", "--storage", sqlite_url)
        assert _ledger(sqlite_url) == []


def _run_folders(where: Path) -> list[Path]:
    return [path for path in where.glob("*/*/meta.yaml") if len(path.parent.name) == 32]


def _folder_of(where: Path, item: str) -> Path:
    run = runs(where)[item].info
    return where / run.experiment_id / run.run_id


def _is_finished(about: Path) -> bool:
    """By its file, which a killed process may have left empty."""
    return "status: 3" in about.read_text()


def _ledger(sqlite_url: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        return connection.execute("SELECT token, target, item FROM affinity_deliveries").fetchall()


class TestAway:
    def test_it_catches_up_and_says_each_thing_once(self, sqlite: Backend, tmp_path: Path) -> None:
        study, said = make(sqlite), list[str]()
        train(study, most=2)
        (tmp_path / "runs").write_text("in the way: no folder can be made here")
        clock = FakeClock()
        one = collector(study, tmp_path / "runs", say=said.append, clock=clock)
        for _ in range(5):
            one.look()
            clock.now += 100.0
        assert (one.unsent, len(said)) == (2, 1)
        assert "does not take what is sent" in said[0]
        assert "2 runs wait, the search goes on" in said[0]
        (tmp_path / "runs").unlink()
        train(study)
        one.look()
        assert said[1:] == [f"MLflow at {tmp_path}/runs takes what is sent again"]
        whole(tmp_path / "runs", study)

    def test_its_pauses_grow(self, sqlite: Backend) -> None:
        clock, tries = FakeClock(), []
        one = collector(trained(sqlite), "http://127.0.0.1:9", clock=clock)
        post = one.posts[0]
        for second in range(200):
            before = post.tried_at
            one.look()
            tries += [second] if post.tried_at != before else []
            clock.now += 1.0
        gaps = [later - earlier for earlier, later in pairwise(tries)]
        assert gaps == [1, 2, 4, 8, 16, 32, 60, 60]

    @pytest.mark.long
    def test_a_launch_trains_on_and_ends_as_it_would(
        self, sqlite: Backend, sqlite_url: str, start: Start, tmp_path: Path
    ) -> None:
        study = make(sqlite)
        launch = start("launch", "tiny", "--storage", sqlite_url, "--track", "mlflow=http://me:geheim@127.0.0.1:9")
        assert launch.ended() == 0
        assert "connection refused" in launch.said
        assert "5 runs not sent to MLflow at http://127.0.0.1:9" in launch.said
        assert "to send later: affinity-search track tiny" in launch.said
        assert "geheim" not in launch.said
        assert [trial.state for trial in study.optuna.trials] == [TrialState.COMPLETE] * 4
        later = start("track", "tiny", "--to", f"mlflow={tmp_path}/runs", "--storage", sqlite_url)
        assert later.ended() == 0
        whole(tmp_path / "runs", study)


class TestCrooked:
    def test_a_place_without_a_trial_is_a_run_too(self, sqlite: Backend, tmp_path: Path) -> None:
        """Its attempts died before one began."""
        study = make(sqlite, trials=1)
        row = tables.places.c.token == study.token
        with sqlite.engine.begin() as connection:
            connection.execute(update(tables.places).where(row).values(state="spent", reason="died", finished_at=1.0))
        collector(study, tmp_path / "runs").send_all()
        assert runs(tmp_path / "runs")["place/0"].info.status == "FAILED"

    def test_what_mlflow_refuses_is_told_once_and_the_rest_is_sent(self, sqlite: Backend, tmp_path: Path) -> None:
        study, said = trained(sqlite), list[str]()
        one = collector(study, tmp_path / "runs", say=said.append)
        real: Callable[..., Any] = on_mlflow.trial_run

        def crooked(finished: Any, *args: Any, **kwargs: Any) -> Any:
            run = real(finished, *args, **kwargs)
            return run if finished.place.number != 1 else type(run)(**vars(run) | {"params": {"a\x00?": "1"}})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(on_mlflow, "trial_run", crooked)
            one.send_all()
        assert one.unsent == 0
        assert len([line for line in said if "refuses place/1" in line]) == 1
        assert sorted(key for key, run in runs(tmp_path / "runs").items() if run.info.status == "FINISHED") == [
            "place/0",
            "place/2",
            "place/3",
        ]
