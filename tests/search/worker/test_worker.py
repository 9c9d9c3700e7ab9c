"""One worker: the loop, its ends, its signals. The last tests train with the real Keras."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli, Start, Started
from making import TINY, make, open_study, redefined, train, worker_for
from optuna.trial import TrialState
from waiting import until

from affinity_search.search.devices.slots import Slot
from affinity_search.search.worker.exits import Exit
from affinity_search.search.worker.setup import WorkerOptions, work
from affinity_search.search.worker.stopping import StopSignals
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.results.evaluations import openings
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.study import StoredStudy, history, load_study
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.storage.trials.seeds import trial_seed


def places_of(study: StoredStudy) -> Places:
    return Places.of(study)


def noting(order: list[str], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*args: Any) -> Any:
        order.append(name)
        return method(*args)

    return noted


@pytest.mark.usefixtures("fake_training")
class TestTheLoop:
    def test_places_are_used_until_none_is_free(self, backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
        study = make(backend)
        assert work(OneStudy(study), WorkerOptions("cpu", 1, worker_id="me")) == 4
        assert work(OneStudy(study), WorkerOptions("cpu", 1, worker_id="me")) == 0
        assert {row.worker for row in places_of(study).rows()} == {"me"}
        said = capsys.readouterr().err
        assert said.count("complete: macro F1") == 4
        assert "(holdout) at epoch 2" in said
        assert "worker me: 4 trials ended" in said

    def test_the_study_is_read_before_a_place_is_held(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ten thousand trials take seconds, which no trial shall last longer for."""
        order: list[str] = []
        for owner, name in ((StoredStudy, "read_ahead"), (Places, "claim")):
            monkeypatch.setattr(owner, name, noting(order, name, getattr(owner, name)))
        work(OneStudy(make(sqlite, trials=1)), WorkerOptions("cpu", 1, worker_id="me"))
        assert order == ["read_ahead", "claim", "claim"]

    def test_what_is_written_beside_a_trial(self, sqlite: Backend) -> None:
        study = make(sqlite, trials=1)
        work(OneStudy(study), WorkerOptions("cpu", 1, worker_id="me"))
        (trial,) = study.optuna.trials
        facts = TrialFacts.of(trial)
        assert (facts.place, facts.attempt, facts.worker) == (0, 1, "me")
        assert facts.protocol == "holdout"
        assert (facts.versions or {})["optuna"]
        assert facts.scores.macro_f1 == 1 - (trial.value or 0)
        assert list(trial.intermediate_values) == [0, 1]
        assert trial.intermediate_values[facts.scores.best_epoch - 1] == pytest.approx(trial.value)

    def test_a_loss_that_is_no_number_uses_the_place_up_and_the_search_goes_on(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_DIVERGING", f"{trial_seed(0, 0)} {trial_seed(0, 2)}")
        study = make(backend)
        assert work(OneStudy(study), WorkerOptions("cpu")) == 4
        rows = places_of(study).rows()
        ends = [PlaceState.SPENT, PlaceState.COMPLETE, PlaceState.SPENT, PlaceState.COMPLETE]
        assert [row.state for row in rows] == ends
        assert rows[0].reason.startswith("The loss became nan in epoch 1")
        trial = study.optuna.trials[0]
        assert trial.state == TrialState.FAIL
        assert TrialFacts.of(trial).reason == rows[0].reason
        assert places_of(study).counts().failed == 2

    def test_an_unforeseen_error_ends_the_worker_and_frees_the_place(
        self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_BROKEN", str(trial_seed(0, 1)))
        study = make(sqlite)
        for attempt, state in ((1, PlaceState.FREE), (2, PlaceState.FREE), (3, PlaceState.SPENT)):
            with pytest.raises(RuntimeError, match="fell off the bus"):
                work(OneStudy(study), WorkerOptions("cpu"))
            row = places_of(study).rows()[1]
            assert (row.state, row.attempt) == (state, attempt)
            assert row.reason == "RuntimeError: the fake card fell off the bus"
        failed = [t for t in study.optuna.trials if t.state == TrialState.FAIL]
        assert len(failed) == 3
        assert all(t.params == failed[0].params for t in failed)
        assert work(OneStudy(study), WorkerOptions("cpu")) == 2, "the others are not harmed"

    def test_a_space_that_widens_meanwhile_is_seen_by_the_next_trial(self, sqlite: Backend) -> None:
        study = make(sqlite, overrides=["space.n_centers=1", "sampler.kind=random"])
        worker = worker_for(study)
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        open_study(sqlite, "tiny", overrides=["space.n_centers={low=1,high=900}"])
        worker.run(claim, lambda: False)
        train(study, most=3)
        assert max(t.params["n_centers"] for t in study.optuna.trials) > 10


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's beginning is told in whole seconds")
def test_a_process_knows_its_age() -> None:
    code = "from affinity_search.search.worker.loop import process_age_s; print(process_age_s())"
    began = time.monotonic()
    told = float(subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 0.01 < told <= time.monotonic() - began + 0.02


def test_the_command_finds_a_device_and_says_what_it_made(
    sqlite_url: str, cli: Cli, fake_training: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "affinity_search.search.devices.slots.plan", lambda devices, workers, **others: [Slot("cpu", "cpu", 1, {})]
    )
    ran = cli("worker", TINY, "--trials", "2", "--storage", sqlite_url)
    assert ran.out == ""
    assert ran.err.startswith("created study 'tiny' with 2 places\n")
    assert "2 trials ended" in ran.err


class TestSignals:
    def test_the_first_interrupt_drains_and_the_second_stops(self) -> None:
        seen = []
        with StopSignals(lambda signals: seen.append((signals.draining, signals.stopping))) as signals:
            signal.raise_signal(signal.SIGINT)
            assert not signals.should_stop()
            signal.raise_signal(signal.SIGINT)
            assert signals.should_stop()
        assert seen == [(True, False), (True, True)]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_a_request_to_end_stops_at_once(self, number: signal.Signals) -> None:
        with StopSignals() as signals:
            signal.raise_signal(number)
            assert signals.draining
            assert signals.should_stop()

    def test_the_former_handlers_come_back(self) -> None:
        with contextlib.suppress(ValueError), StopSignals():
            raise ValueError
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


class TestStopping:
    """A real process whose training waits at a gate."""

    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        """What signals do is the same for every database."""
        return sqlite_url

    @pytest.fixture
    def study(self, backend: Backend) -> StoredStudy:
        return make(backend)

    @pytest.fixture
    def worker(self, study: StoredStudy, database_url: str, start: Start, tmp_path: Path) -> Started:
        """It has reported its first epoch."""
        began = start(
            "worker", "tiny", "--device", "cpu", AFFINITY_SEARCH_STORAGE=database_url, FAKE_GATE=str(tmp_path / "gate")
        )
        until(lambda: any(t.intermediate_values for t in study.optuna.get_trials()), "the first epoch")
        return began

    def test_an_interrupt_lets_the_trial_finish(self, study: StoredStudy, worker: Started, tmp_path: Path) -> None:
        worker.interrupt()
        until(lambda: "no new trial after this one" in worker.said, "the worker to hear it")
        (tmp_path / "gate").touch()
        assert worker.ended() == Exit.STOPPED
        counts = places_of(study).counts()
        assert (counts.complete, counts.free) == (1, 3)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_a_request_to_end_gives_the_trial_back(
        self, study: StoredStudy, worker: Started, number: signal.Signals
    ) -> None:
        worker.process.send_signal(number)
        assert worker.ended() == Exit.STOPPED
        (row, *_) = places_of(study).rows()
        assert (row.state, row.attempt) == (PlaceState.FREE, 0), "the attempt is not counted"
        assert row.reason == "given back: the worker was asked to stop"
        assert study.optuna.trials[0].state == TrialState.FAIL

        assert train(study) == 4
        first, again, *_ = study.optuna.trials
        assert again.params == first.params
        assert TrialFacts.of(again).seed == TrialFacts.of(first).seed
        assert TrialFacts.of(again).attempt == 1


class TestWithKeras:
    """The real thing, on the smallest of networks; processes of their own where several work together."""

    SMALL = ("training.epochs=1", "network.widths=[2]", "space.n_centers=1")

    def test_a_learning_rate_beyond_reason_spends_the_places(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        study, _ = open_study(sqlite, TINY, trials=2, overrides=self.SMALL)
        study = redefined(study, learning_rate=1e38)  # today nobody can ask for it
        worker = cli("worker", "tiny", "--device", "cpu", "--threads", "2", "--storage", sqlite_url)
        counts = places_of(study).counts()
        assert (counts.failed, counts.used) == (2, 2), worker.err
        assert all("loss became" in row.reason for row in places_of(study).rows())

    def test_a_search_does_without_the_test_images_and_an_evaluation_does_not(
        self, sqlite: Backend, sqlite_url: str, cli: Cli, tmp_path: Path
    ) -> None:
        images = np.random.default_rng(0).integers(0, 256, (500, 28, 28), dtype=np.uint8)
        labels = np.arange(500) % 10
        np.savez(tmp_path / "mnist.npz", x_train=images, y_train=labels)  # no x_test, no y_test
        study, _ = open_study(sqlite, TINY, trials=1, overrides=[*self.SMALL, "data.set=mnist", "data.minority=3"])
        options = ("--device", "cpu", "--storage", sqlite_url, "--data-dir", str(tmp_path))
        worker = cli("worker", "tiny", "--threads", "2", *options)
        assert places_of(study).counts().complete == 1, worker.err
        assert openings(load_study(sqlite, "tiny")) == []

        evaluation = cli("evaluate", "tiny", "--seeds", "1", *options, fails=True)
        assert evaluation.code == Exit.UNFIT_MACHINE
        assert "x_test" in evaluation.err
        assert "Traceback" not in evaluation.err
        final = load_study(sqlite, "tiny.final")
        opened = [event["text"] for event in history(final) if event["kind"] == "opened"]
        assert len(opened) == 1, "recorded before it is read"
        assert opened[0].startswith("the test images, by ")
        assert Places.of(final).counts().free == 1

    @pytest.mark.long
    def test_launch_evaluate_and_export_the_digits(
        self, sqlite_url: str, start: Start, cli: Cli, sqlite: Backend
    ) -> None:
        at = ("--storage", sqlite_url)
        sets = [part for override in self.SMALL for part in ("--set", override)]
        launch = start("launch", TINY, "--workers", "2", "--trials", "4", *sets, *at, fake=False)
        assert launch.ended(120) == 0, launch.said
        assert "4 of 4 trials done: 4 complete" in launch.said
        assert re.search(r"best macro F1 0\.\d{4} on validation images \(holdout\), trial \d", launch.said), launch.said
        found = json.loads(cli("export", "tiny", *at).out)
        assert found["versions"]["backend"] == "tensorflow"
        assert found["counts"]["complete"] == 4
        assert len({row.trial for row in Places.of(load_study(sqlite, "tiny")).rows()}) == 4

        evaluation = start("evaluate", "tiny", "--draws", "2", "--devices", "cpu", *at, fake=False)
        assert evaluation.ended(120) == 0, evaluation.said
        test = json.loads(cli("export", "tiny", *at).out)["test"]
        assert 0 <= test["macro_f1_least"] <= test["macro_f1_mean"] <= test["macro_f1_greatest"] <= 1
        assert len(test["macro_f1"]) == 2
