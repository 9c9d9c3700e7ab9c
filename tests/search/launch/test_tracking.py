"""The collector with a real MLflow (folder and SQLite), real processes and a real receiver; only training is fake."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Cli, Start
from fake_objective import fake_scores
from making import attempt_at, holder, make, reported, train, trained
from optuna.trial import TrialState
from sqlalchemy import insert, update
from waiting import until
from watching import waiting

from affinity_search.search.launch.tracking import news, on_mlflow
from affinity_search.search.launch.tracking.addresses import Sending, TrackingError, mlflow_address, notify_url
from affinity_search.search.launch.tracking.beside import CollectorProcess
from affinity_search.search.launch.tracking.collector import Collector
from affinity_search.search.training.results import EpochScore
from affinity_search.search.view.pictures import Album
from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.errors import StorageError
from affinity_search.storage.files import StudyFiles, default_root
from affinity_search.storage.places.claims import Places
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.study import StoredStudy
from affinity_search.studies.metrics import score_of
from affinity_search.studies.model.tables.tracking import address_of

SECRET = "hooks-4711-geheim"


def client(where: str | Path) -> Any:
    """MLflow's own, as a person would look there."""
    return on_mlflow._client(address_of(str(where)))


def _all_runs(where: str | Path) -> list[Any]:
    there = client(where)
    numbers = [experiment.experiment_id for experiment in there.search_experiments()]
    return list(there.search_runs(numbers, max_results=1000))


def runs(where: str | Path, *, all_of_them: bool = False) -> dict[str, Any]:
    """The runs of finished trials by place, as MLflow has them; no place has two."""
    found = _all_runs(where)
    kinds = {run.info.run_id: run.data.tags.get("affinity_search.kind") for run in found}
    trials = [run for run in found if all_of_them or kinds[run.info.run_id] != "study"]
    by_key = {run.data.tags["affinity_search.key"].partition("/")[2]: run for run in trials}
    assert len(by_key) == len(trials), sorted(run.data.tags["affinity_search.key"] for run in trials)
    return by_key


def steps(where: str | Path, run: Any, metric: str = "best_macro_f1") -> list[tuple[int, float]]:
    """(epoch, value) in the order in which they are stored: a value that was sent twice stands there twice."""
    return [(each.step, each.value) for each in client(where).get_metric_history(run.info.run_id, metric)]


def collector(study: StoredStudy, where: str | Path | None = None, notify: str | None = None, **more: Any) -> Collector:
    mlflow = None if where is None else address_of(str(where))
    root = default_root(study.backend.url)
    return Collector(OneStudy(study.refreshed()), Sending(mlflow, notify), root, more.pop("say", print), **more)


def whole(where: str | Path, study: StoredStudy) -> None:
    """Every used place is one run that has ended, with exactly the epochs of its trial."""
    trials = {trial.number: trial for trial in study.optuna.trials}
    places = [place for place in Places.of(study).rows() if place.is_used]
    found = runs(where)
    assert sorted(found) == sorted(f"place/{place.number}" for place in places)
    for place in places:
        run = found[f"place/{place.number}"]
        assert run.info.status == ("FAILED" if place.value is None else "FINISHED")
        assert place.trial is not None
        told = trials[place.trial].intermediate_values
        assert steps(where, run) == [(step + 1, score_of(value)) for step, value in sorted(told.items())]


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
        assert len(_all_runs(tmp_path / "runs")) == 7

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
        assert len(_all_runs(tmp_path / "runs")) == 5

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
        clock = _Clock()
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
        clock, tries = _Clock(), []
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


@dataclass
class _Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Receiver:
    """A real HTTP server that answers with these codes in turn, then with 200."""

    codes: list[int] = field(default_factory=list)
    got: list[dict[str, Any]] = field(default_factory=list)
    took: list[dict[str, Any]] = field(default_factory=list)
    hangs: threading.Event = field(default_factory=threading.Event)  # set: it answers nothing
    url: str = ""

    def answer(self, body: dict[str, Any]) -> int:
        self.got.append(body)
        code = self.codes.pop(0) if self.codes else 200
        if code < 300:
            self.took.append(body)
        return code


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    told, over = Receiver(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if told.hangs.is_set():
                over.wait(30)
                return
            self.send_response(told.answer(body))
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_address[1]}/{SECRET}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield told
        over.set()
        server.shutdown()
        thread.join()


def used(study: StoredStudy, *outcomes: float | str) -> None:
    """Use up places: a score, or the reason of a failure."""
    for outcome in outcomes:
        by = holder()
        claim = Places.of(study).claim(by)
        assert claim is not None
        attempt = attempt_at(study, claim, by)
        if isinstance(outcome, str):
            attempt.fail("diverged", outcome)
        else:
            attempt.report(EpochScore(0, 0.5, fake_scores(outcome), 0.001))
            attempt.complete()


class TestNews:
    def test_new_bests_failures_and_the_end(self, sqlite: Backend, receiver: Receiver) -> None:
        study = make(sqlite)
        one = collector(study, notify=receiver.url)
        for outcome in (0.5, "the loss is NaN", 0.4, 0.7):
            used(study, outcome)
            one.look()
        told = [(body["event"], body["trial"], body["score"]) for body in receiver.took]
        assert told == [
            ("new_best", 0, pytest.approx(0.5)),
            ("failure", 1, None),
            ("new_best", 3, pytest.approx(0.7)),
            ("end", 3, pytest.approx(0.7)),
        ]
        assert receiver.took[1]["reason"] == "the loss is NaN"
        assert receiver.took[0]["params"] == Places.of(study).rows()[0].params
        assert (receiver.took[3]["study"], receiver.took[3]["metric"]) == ("tiny", "macro_f1")
        assert receiver.took[3]["at"].endswith("Z")
        assert len({body["id"] for body in receiver.took}) == 4

    def test_a_receiver_that_fails_gets_the_same_again(self, sqlite: Backend, receiver: Receiver) -> None:
        study, said, clock = make(sqlite, trials=1), list[str](), _Clock()
        used(study, 0.5)
        receiver.codes = [500, 302, 404]
        one = collector(study, notify=receiver.url, say=said.append, clock=clock)
        for _ in range(6):
            one.look()
            clock.now += 100.0
        assert [body["event"] for body in receiver.took] == ["new_best", "end"]
        assert [body["id"] for body in receiver.got[:4]] == [receiver.took[0]["id"]] * 4
        assert said[0].startswith("the address of --notify does not take what is sent (it answered with HTTP 500)")
        assert len(said) == 2

    def test_one_that_hangs_is_left_and_tried_again(
        self, sqlite: Backend, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study, said, clock = make(sqlite, trials=1), list[str](), _Clock()
        used(study, 0.5)
        monkeypatch.setattr(news, "ANSWER_S", 0.2)
        receiver.hangs.set()
        one = collector(study, notify=receiver.url, say=said.append, clock=clock)
        one.look()
        assert "no answer within" in said[0]
        receiver.hangs.clear()
        clock.now += 100.0
        one.look()
        assert [body["event"] for body in receiver.took] == ["new_best", "end"]

    def test_what_was_beaten_meanwhile_is_no_news(self, sqlite: Backend, receiver: Receiver) -> None:
        study = make(sqlite)
        used(study, 0.5, 0.6, 0.7)
        collector(study, notify=receiver.url).look()
        assert [body["trial"] for body in receiver.took] == [2]
        collector(study, notify=receiver.url).look()
        assert len(receiver.got) == 1, "a restart sends nothing again"

    def test_two_launchers_post_once(
        self, sqlite: Backend, sqlite_url: str, receiver: Receiver, start: Start, tmp_path: Path
    ) -> None:
        study = make(sqlite)
        gate = tmp_path / "gate"
        both = [
            start(
                "launch",
                "tiny",
                "--storage",
                sqlite_url,
                FAKE_GATE=str(gate),
                AFFINITY_SEARCH_NOTIFY=receiver.url,
            )
            for _ in range(2)
        ]
        until(lambda: len(waiting(study)) == 2, "both to train")
        gate.touch()
        assert [one.ended() for one in both] == [0, 0]
        ids = [body["id"] for body in receiver.took]
        assert len(ids) == len(set(ids))
        assert [body["event"] for body in receiver.took].count("end") == 1


class TestBeside:
    @pytest.mark.long
    def test_a_collector_that_is_killed_is_started_again(
        self, sqlite: Backend, sqlite_url: str, start: Start, tmp_path: Path
    ) -> None:
        study, gate = make(sqlite), tmp_path / "gate"
        options = ("tiny", "--storage", sqlite_url, "--track", f"mlflow={tmp_path}/runs")
        launch = start("launch", *options, FAKE_GATE=str(gate))
        until(lambda: waiting(study), "a worker to train")
        _below(launch.process.pid, "track").kill()
        until(lambda: "the collector ended early (killed by SIGKILL); another one is started" in launch.said, "another")
        gate.touch()
        assert launch.ended() == 0
        assert "5 runs sent to MLflow" in launch.said
        whole(tmp_path / "runs", study)

    @pytest.mark.long
    def test_one_whose_launcher_is_killed_sends_what_is_there_and_ends(
        self, sqlite: Backend, sqlite_url: str, start: Start, tmp_path: Path
    ) -> None:
        study, gate = make(sqlite, trials=2), tmp_path / "gate"
        train(study, most=1)
        options = ("tiny", "--storage", sqlite_url, "--track", f"mlflow={tmp_path}/runs")
        launch = start("launch", *options, FAKE_GATE=str(gate))
        until(lambda: waiting(study), "a worker to train")
        beside = _below(launch.process.pid, "track")
        (worker,) = waiting(study)
        os.kill(launch.process.pid, signal.SIGKILL)
        until(lambda: not beside.is_running() or beside.status() == psutil.STATUS_ZOMBIE, "the collector to end")
        os.kill(worker.pid, signal.SIGKILL)
        assert [*runs(tmp_path / "runs")] == ["place/0"]

    def test_a_launch_that_fails_is_news(self, sqlite: Backend, receiver: Receiver, tmp_path: Path) -> None:
        study = make(sqlite)
        beside = CollectorProcess(OneStudy(study), Sending(notify=receiver.url), None, print)
        with pytest.raises(StorageError), beside:
            raise StorageError("no device is left")
        assert [(body["event"], body["trial"], body["reason"]) for body in receiver.took] == [
            ("failure", None, "no device is left")
        ]


class TestSecrets:
    @pytest.mark.long
    def test_no_process_but_the_collector_is_told_and_nothing_keeps_it(
        self, sqlite: Backend, sqlite_url: str, receiver: Receiver, start: Start, tmp_path: Path
    ) -> None:
        study, gate = make(sqlite), tmp_path / "gate"
        receiver.codes = [500]
        launch = start(
            "launch",
            "tiny",
            "--storage",
            sqlite_url,
            "--track",
            "mlflow",
            forked=False,
            FAKE_GATE=str(gate),
            AFFINITY_SEARCH_NOTIFY=receiver.url,
            MLFLOW_TRACKING_URI=f"file://{tmp_path}/runs",
            MLFLOW_TRACKING_PASSWORD="geheim",
        )
        until(lambda: waiting(study), "a worker to train")
        below = {kind: _below(launch.process.pid, kind) for kind in ("worker", "track")}
        environment = {name: name in below["worker"].environ() for name in ("PATH", "AFFINITY_SEARCH_NOTIFY")}
        assert environment == {"PATH": True, "AFFINITY_SEARCH_NOTIFY": False}
        assert not any(key.startswith("MLFLOW_TRACKING") for key in below["worker"].environ())
        assert SECRET not in str([process.cmdline() for process in below.values()])
        gate.touch()
        assert launch.ended() == 0
        assert "2 messages sent" in launch.said or "messages sent to the address of --notify" in launch.said
        kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        assert not [each for each in kept if SECRET.encode() in each or b"geheim" in each]
        whole(tmp_path / "runs", study)

    def test_an_error_of_a_library_is_masked(self) -> None:
        said: list[str] = []
        sending = Sending(address_of("http://me:p4ss@host"), "https://host/a/b?key=1")
        from affinity_search.search.launch.tracking.collector import _masked

        _masked(said.append, sending.secrets, "failed at https://host/a/b?key=1 and //me:p4ss@host")
        assert said == ["failed at *** and //me:***@***"]


def _below(pid: int, kind: str) -> psutil.Process:
    def found() -> psutil.Process | None:
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if kind in process.cmdline():
                    return process
        return None

    process = until(found, f"a {kind}")
    assert process is not None
    return process


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
