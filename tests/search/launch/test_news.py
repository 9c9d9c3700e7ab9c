"""News that are posted to a real receiver, the collector beside a launcher, and what is kept secret."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Start
from fake_objective import fake_scores
from making import attempt_at, holder, make, train
from waiting import until
from watching import FakeClock, waiting

from affinity_search.search.launch.tracking import news
from affinity_search.search.launch.tracking.addresses import Sending
from affinity_search.search.launch.tracking.beside import CollectorProcess
from affinity_search.search.training.results import EpochScore
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.errors import StorageError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.study import StoredStudy
from affinity_search.studies.model.tables.tracking import address_of

SECRET = "hooks-4711-geheim"
from sending import collector, runs, whole

SECRET = "hooks-4711-geheim"


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
        study, said, clock = make(sqlite, trials=1), list[str](), FakeClock()
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
        study, said, clock = make(sqlite, trials=1), list[str](), FakeClock()
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
