"""Few kinds of failure, each with a reaction: tried again, tried once more, spent at once, or the search stops."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Start
from making import attempt_at, holder, make, train, worker_for
from optuna.trial import TrialState
from sqlalchemy import inspect, text
from sqlalchemy.exc import OperationalError
from waiting import until
from watching import FakeClock, watch

from affinity_search.search.devices.slots import Slot
from affinity_search.search.launch.launcher import START_S, TROUBLE_S, Launcher, WorkersDieError
from affinity_search.search.launch.process import WorkerProcess
from affinity_search.search.training.errors import OutOfMemoryError
from affinity_search.search.worker.exits import Exit
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.errors import RepeatedFailureError, StorageError, StorageGoneError
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.place import Place
from affinity_search.storage.places.recovery import Recovery
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.study import StoredStudy, load_study
from affinity_search.storage.trials import reporting as reports
from affinity_search.storage.trials.facts import TrialFacts, attempts_at
from affinity_search.storage.trials.reporting import Report, Reports
from affinity_search.storage.trials.seeds import trial_seed


def seeds(*places: int) -> str:
    return " ".join(str(trial_seed(0, place)) for place in places)


@pytest.mark.usefixtures("fake_training")
class TestOutOfMemory:
    def test_it_is_tried_once_more(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_FULL", seeds(1))
        study = make(backend)
        assert train(study) == 4, "the worker goes on"
        row = Places.of(study).rows()[1]
        assert (row.state, row.attempt, row.cause) == (PlaceState.SPENT, 2, "out of memory")
        assert row.reason == "the fake card is full"
        attempts = attempts_at(study, 1)
        assert [trial.state for trial in attempts] == [TrialState.FAIL] * 2
        assert [TrialFacts.of(trial).cause for trial in attempts] == ["out of memory"] * 2

    def test_once_more_may_do(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_FULL", seeds(0))
        study = make(sqlite)
        worker = worker_for(study)
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        assert not worker.run(claim, lambda: False)
        monkeypatch.delenv("FAKE_FULL")
        train(study)
        row = Places.of(study).rows()[0]
        assert (row.state, row.attempt, row.reason) == (PlaceState.COMPLETE, 2, None)


@pytest.mark.usefixtures("fake_training")
class TestOutOfMemoryOnAGpu:
    """It ends the process, and speaks against the GPU sooner than against the place."""

    def fail(self, study: StoredStudy, card: str) -> Place:
        """An attempt that has no room; returns what it left of the place."""
        worker = worker_for(study, card=card)
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        with pytest.raises(OutOfMemoryError, match="the fake card is full"):
            worker.run(claim, lambda: False)
        return Places.of(study).rows()[claim.number]

    @pytest.fixture
    def study(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> StoredStudy:
        monkeypatch.setenv("FAKE_FULL", seeds(0))
        return make(backend, overrides=["max_attempts=5"])

    def test_one_gpu_spends_no_place_and_a_second_one_does(self, study: StoredStudy) -> None:
        for attempt in (1, 2, 3):
            row = self.fail(study, "GPU-a")
            assert (row.number, row.state, row.attempt) == (0, PlaceState.FREE, attempt)
            assert row.cause == "out of memory"
        row = self.fail(study, "GPU-b")
        assert (row.state, row.attempt, row.reason) == (PlaceState.SPENT, 4, "the fake card is full")

    def test_the_last_attempt_is_the_last_on_one_gpu_too(
        self, study: StoredStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dropped: list[int] = []
        monkeypatch.setattr(StudyFiles, "drop_checkpoint", lambda files, number: dropped.append(number))
        assert [self.fail(study, "GPU-a").state for _ in range(4)] == [PlaceState.FREE] * 4
        assert dropped == []
        assert self.fail(study, "GPU-a").state == PlaceState.SPENT
        assert dropped == [0]

    def test_a_cpu_s_failure_is_another_device_s(self, study: StoredStudy) -> None:
        assert self.fail(study, "GPU-a").state == PlaceState.FREE
        assert train(study, most=1) == 1
        assert Places.of(study).rows()[0].state == PlaceState.SPENT

    def test_the_process_ends_with_one_line(self, sqlite: Backend, start: Start) -> None:
        study = make(sqlite)
        full = {"FAKE_FULL": seeds(1)}
        worker = start("worker", "tiny", "--device", "gpu:0", "--storage", str(sqlite), **full)
        assert worker.ended() == Exit.OUT_OF_MEMORY == 71
        assert worker.said.splitlines()[-1] == "error: the fake card is full"
        # It has no launcher: after the first failure it became a fresh process by itself.
        assert "the fake card is full; once more in a fresh process" in worker.said
        assert worker.said.count("the fake card is full") == 2
        assert "Traceback" not in worker.said
        states = [(row.state, row.attempt) for row in Places.of(study).rows()]
        assert states == [(PlaceState.COMPLETE, 1), (PlaceState.FREE, 2)] + [(PlaceState.FREE, 0)] * 2

    def test_trials_in_between_begin_the_count_anew(self, sqlite: Backend, start: Start) -> None:
        """As a launcher counts: somebody else's program on the card comes and goes."""
        study = make(sqlite)
        worker = start("worker", "tiny", "--device", "gpu:0", "--storage", str(sqlite), FAKE_FULL_AFTER="1")
        assert worker.ended() == 0, worker.said
        assert worker.said.count("once more in a fresh process") == 3
        assert [row.state for row in Places.of(study).rows()] == [PlaceState.COMPLETE] * 4


class TestThreeInARow:
    def test_a_worker_stops_with_the_cause_and_keeps_the_budget(self, sqlite: Backend, start: Start) -> None:
        study = make(sqlite, trials=8)
        bad = {"FAKE_DIVERGING": seeds(*range(1, 8))}
        worker = start("worker", "tiny", "--device", "cpu", "--storage", str(sqlite), **bad)
        assert worker.ended() == Exit.UNFIT_MACHINE
        assert "error: 3 places in a row failed for the same cause" in worker.said
        assert "The loss became nan in epoch 1" in worker.said.splitlines()[-1]
        assert "Traceback" not in worker.said
        states = [row.state for row in Places.of(study).rows()]
        assert states == [PlaceState.COMPLETE] + [PlaceState.SPENT] * 3 + [PlaceState.FREE] * 4

    def test_so_does_a_launcher(self, sqlite: Backend, start: Start) -> None:
        study = make(sqlite, trials=8)
        bad = {"FAKE_DIVERGING": seeds(*range(8)), "AFFINITY_SEARCH_STORAGE": str(sqlite)}
        launch = start("launch", "tiny", "--workers", "1", **bad)
        assert launch.ended() == Exit.UNFIT_MACHINE
        assert launch.said.splitlines()[-1].startswith("error: 3 places in a row failed for the same cause")
        counts = Places.of(study).counts()
        assert (counts.failed, counts.running) == (3, 0)

    def test_deaths_that_only_the_launcher_sees(self, sqlite: Backend, start: Start) -> None:
        study = make(sqlite, trials=8, overrides=["max_attempts=1"])
        deadly = {"FAKE_KILLED": "1", "AFFINITY_SEARCH_STORAGE": str(sqlite)}
        launch = start("launch", "tiny", "--workers", "1", **deadly)
        assert launch.ended() == Exit.UNFIT_MACHINE
        last = launch.said.splitlines()[-1]
        assert last.startswith("error: 3 places in a row failed for the same cause"), launch.said
        assert last.endswith("its worker died (killed by SIGKILL)")
        assert Places.of(study).counts().failed == 3

    def test_what_is_not_in_a_row_or_of_another_cause_or_older_does_not_count(self, backend: Backend) -> None:
        study = make(backend, trials=12)
        places = Places.of(study)

        def spend(cause: str) -> None:
            claim = places.claim(holder("me"))
            assert claim is not None
            places.finish(claim, PlaceState.SPENT, cause=cause, reason=f"{cause} at {claim.number}")
            places.refuse_repeated_failure(["me"], since)

        since = study.backend.time()
        for cause in ("diverged", "diverged", "out of memory", "diverged", "diverged"):
            spend(cause)
        last = study.backend.time()
        since = until(lambda: (now := study.backend.time()) > last and now, "SQLite's clock to move, by a millisecond")
        spend("diverged")
        spend("diverged")
        places.refuse_repeated_failure(["another"], 0.0)
        with pytest.raises(RepeatedFailureError, match="diverged at 7"):
            spend("diverged")


class TestAttemptsAtAPlace:
    def test_the_study_says_how_many(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        study = make(sqlite, overrides=["max_attempts=2"])
        places = Places.of(study)
        for expected in (PlaceState.FREE, PlaceState.SPENT):
            claim = places.claim(holder())
            assert claim is not None
            assert places.fail_attempt(claim, "RuntimeError", "again") == expected

    def test_it_may_change_while_the_study_runs(self, backend: Backend) -> None:
        """Recovery takes the present limit, not that of its start."""
        study = make(backend)
        places = Places.of(study, lease_s=0.2)
        claim = places.claim(holder())
        assert claim is not None
        clock = FakeClock()
        recovery = Recovery(study, clock)
        make(backend, overrides=["max_attempts=1"])
        until(lambda: study.backend.time() > places.rows()[0].lease_until, "the end of the lease")
        watch(recovery, clock, 0.3, step=0.04)
        assert places.rows()[0].state == PlaceState.SPENT

    def test_a_lost_trial_says_why_it_failed(self, backend: Backend) -> None:
        study = make(backend)
        places, holding = Places.of(study, lease_s=0.2), holder("lost-one")
        claim = places.claim(holding)
        assert claim is not None
        attempt_at(study, claim, holding)
        until(lambda: study.backend.time() > places.rows()[0].lease_until, "the end of the lease")
        clock = FakeClock()
        watch(Recovery(study, clock), clock, 0.3, step=0.04)
        (trial,) = study.optuna.trials
        assert trial.state == TrialState.FAIL
        assert str(TrialFacts.of(trial).reason).startswith("lease ended: lost-one on this-host was silent for")
        assert places.rows()[0].cause == "lost"


@pytest.fixture
def locked(sqlite: Backend) -> Iterator[threading.Event]:
    """Another program holds the write lock until the event is set: it is a program of its own, as in life."""
    path = str(sqlite.url.database)
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)\n"
        "connection.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()"
    )
    held = threading.Event()
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin = process.stdin

    def release() -> None:
        held.wait()
        stdin.close()

    releasing = threading.Thread(target=release)
    releasing.start()
    assert process.stdout.readline() == "locked\n"
    yield held
    held.set()
    releasing.join()
    process.wait(30)


class TestALockedFile:
    def test_training_goes_on_and_its_reports_arrive_later(
        self, sqlite: Backend, start: Start, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        study = make(sqlite, trials=1, overrides=["training.epochs=6"])
        gate = {"FAKE_GATE": str(tmp_path / "gate")}
        worker = start("worker", "tiny", "--device", "cpu", "--storage", str(sqlite), **gate)
        until(lambda: any(t.intermediate_values for t in study.optuna.get_trials()), "the first epoch")
        release = request.getfixturevalue("locked")
        (tmp_path / "gate").touch()
        until(lambda: "epoch 6/6" in worker.said, "the last epoch, with the file still locked", timeout_s=20)
        assert len(study.optuna.get_trials()[0].intermediate_values) == 1
        release.set()
        assert worker.ended() == 0, worker.said
        (trial,) = study.optuna.get_trials()
        assert trial.state == TrialState.COMPLETE
        assert sorted(trial.intermediate_values) == list(range(6))
        assert Places.of(study).rows()[0].attempt == 1

    def test_a_stop_does_not_wait_for_the_lock(
        self, sqlite: Backend, start: Start, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        study = make(sqlite, trials=1)
        gate = {"FAKE_GATE": str(tmp_path / "gate")}
        worker = start("worker", "tiny", "--device", "cpu", "--storage", str(sqlite), **gate)
        until(lambda: any(t.intermediate_values for t in study.optuna.get_trials()), "the first epoch")
        request.getfixturevalue("locked")
        worker.process.terminate()
        assert worker.ended(timeout_s=10) == 0, worker.said
        assert "its place becomes free when its lease ends" in worker.said

    def test_silence_behind_a_lock_ends_no_lease(self, sqlite: Backend, request: pytest.FixtureRequest) -> None:
        """The file can be read all the time, but nobody could have renewed: the watch begins when it can be written."""
        study = make(sqlite)
        places = Places.of(study, lease_s=0.2)
        assert places.claim(holder())
        clock = FakeClock()
        recovery = Recovery(study, clock, every_s=0.05)
        until(lambda: study.backend.time() > places.rows()[0].lease_until, "the end of the lease")
        recovery.look()
        release = request.getfixturevalue("locked")
        for _ in range(2):
            clock.now += 0.1
            with pytest.raises(OperationalError, match="locked"), reports.at_once():
                recovery.look()
        release.set()
        until(lambda: _writable(places), "the lock to be released")
        clock.now += 0.05
        assert recovery.look() == []
        assert places.rows()[0].state == PlaceState.HELD


def _writable(places: Places) -> bool:
    try:
        with reports.at_once():
            places.backend.prove_writable()
    except OperationalError:
        return False
    return True


class TestReports:
    """What an epoch's report does while the storage is away."""

    def score(self, epoch: int) -> Report:
        return Report(epoch, 0.5)

    def test_they_wait_in_order_and_pauses_grow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now, away = 0.0, True
        monkeypatch.setattr(reports.time, "monotonic", lambda: now)
        sent, tries = [], []

        def send(score: Report) -> None:
            tries.append(now)
            if away:
                raise OperationalError("INSERT", {}, Exception("database is locked"))
            sent.append(score.epoch)

        waiting = Reports(send, limit_s=None)
        for epoch in range(100):
            now = epoch * 0.25
            assert waiting.add(self.score(epoch), lambda: True) is False
        assert tries == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5]
        away, now = False, 100.0
        assert waiting.add(self.score(100), lambda: True) is True
        assert sent == list(range(101))

    def test_an_outage_beyond_the_limit_ends_the_worker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 0.0
        monkeypatch.setattr(reports.time, "monotonic", lambda: now)

        def send(score: Report) -> None:
            raise OperationalError("INSERT", {}, Exception("server closed the connection"))

        waiting = Reports(send, limit_s=60.0)
        waiting.add(self.score(0), lambda: True)
        now = 60.0
        waiting.add(self.score(1), lambda: True)
        now = 120.0
        with pytest.raises(StorageGoneError, match=r"away for 120 s \(server closed the connection\)"):
            waiting.add(self.score(2), lambda: True)


@pytest.mark.long
def test_a_worker_whose_storage_stays_away_keeps_a_checkpoint_and_says_so_in_one_line(
    sqlite: Backend, start: Start, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    study = make(sqlite, trials=1, overrides=["training.epochs=4"])
    options = ("--device", "cpu", "--storage", str(sqlite), "--outage-s", "0.5")
    worker = start("worker", "tiny", *options, FAKE_GATE=str(tmp_path / "gate"))
    until(lambda: any(t.intermediate_values for t in study.optuna.get_trials()), "the first epoch")
    release = request.getfixturevalue("locked")
    monitor = sqlite3.connect(str(sqlite.url.database))
    assert monitor.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    (tmp_path / "gate").touch()
    assert worker.ended(timeout_s=100) == 1
    assert worker.said.splitlines()[-1].startswith("error: the storage was away for")
    assert "Traceback" not in worker.said
    assert worker_for(study).files.checkpoint(0).exists()
    release.set()
    monitor.close()


class TestAnOlderDatabase:
    """Made by a version that knew no causes."""

    @pytest.fixture
    def older(self, database_url: str, backend: Backend) -> str:
        make(backend)
        with backend.engine.begin() as connection:
            connection.execute(text("ALTER TABLE affinity_places DROP COLUMN cause"))
            connection.execute(text("UPDATE affinity_schema SET version = 1"))
        return database_url

    def test_who_only_reads_is_told(self, older: str) -> None:
        with pytest.raises(StorageError, match=r"version 1 of an older affinity-search.*brings it up to date"):
            open_backend(older, create=False)

    def test_a_launch_brings_it_up_to_date_and_keeps_everything(self, older: str) -> None:
        opened = open_backend(older, create=True)
        assert "cause" in {column["name"] for column in inspect(opened.engine).get_columns("affinity_places")}
        study = load_study(opened, "tiny")
        claim = Places.of(study).claim(holder())
        assert claim is not None
        assert len(Places.of(study).rows()) == 4
        opened.close()


def card_slot(number: int, **more: Any) -> Slot:
    """A fake card; what the launcher asks NVML is told apart in test_accelerators."""
    return Slot(f"gpu:{number}", "gpu:0", None, {"CUDA_VISIBLE_DEVICES": str(number)}, **more)


TWO_CARDS = (card_slot(0), card_slot(1))
# Between two looks of a launcher. A real worker needs many looks from its start to its first place, and to its end from
# its last word; one of these fakes is done with either within one usual look.
OFTEN_S = 0.01


def launch(study: StoredStudy, slots: Sequence[Slot], say: Callable[[str], None], **more: Any) -> bool:
    """With real worker processes."""
    return Launcher(OneStudy(study), slots, None, show=lambda study, workers: None, say=say, **more).run() == Exit.DONE


def states(study: StoredStudy) -> list[PlaceState]:
    return [row.state for row in Places.of(study).rows()]


@pytest.mark.usefixtures("fake_workers")
def test_a_lost_gpu_is_one_line_and_the_others_go_on(
    sqlite: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"  # else the other worker may have used all places before this one is missed
    monkeypatch.setenv("FAKE_LOST_CARD", "1")
    monkeypatch.setenv("FAKE_GATE", str(gate))
    study, said = make(sqlite), []

    def hear(line: str) -> None:
        said.append(line)
        if "card" in line:
            gate.touch()

    assert launch(study, TWO_CARDS, hear)
    assert [line for line in said if "card" in line] == ["no more workers on gpu:1: the fake card is lost"]
    assert {row.worker[-4:] for row in Places.of(study).rows()} == {"gpu0"}


class FakeNvidia:
    """In place of `trouble`: each look takes `look_s` on the launcher's clock, and `full` says what it finds."""

    def __init__(self, full: Callable[[Slot, float], bool], look_s: float) -> None:
        self.now = 0.0
        self.looks = 0
        self._full = full
        self._look_s = look_s

    def trouble(self, slot: Slot) -> str | None:
        self.now += self._look_s
        self.looks += 1
        return f"{slot.label} is full" if self._full(slot, self.now) else None


@pytest.mark.usefixtures("fake_workers")
class TestFullGpus:
    """NVML says so before a worker is started."""

    def launch(self, nvidia: FakeNvidia, study: StoredStudy, say: Callable[[str], None], slots: Sequence[Slot]) -> bool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("affinity_search.search.launch.launcher.trouble", nvidia.trouble)
            return launch(study, slots, say, clock=lambda: nvidia.now)

    def test_one_that_stays_full_starts_no_worker(
        self, sqlite: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_GATE", str(tmp_path / "gate"))
        study, said = make(sqlite), []
        nvidia = FakeNvidia(lambda slot, now: slot.label == "gpu:0", TROUBLE_S / 8)

        def say(line: str) -> None:
            """The other one holds its first place until this one has been given up."""
            said.append(line)
            (tmp_path / "gate").touch()

        assert self.launch(nvidia, study, say, TWO_CARDS)
        assert said == ["no more workers on gpu:0: gpu:0 is full"]
        assert states(study) == [PlaceState.COMPLETE] * 4

    def test_one_that_is_full_for_a_moment_is_used(self, sqlite: Backend) -> None:
        said: list[str] = []
        nvidia = FakeNvidia(lambda slot, now: now < TROUBLE_S, 4.0)
        assert self.launch(nvidia, make(sqlite), said.append, TWO_CARDS[:1])
        assert said == []
        assert nvidia.looks == 3, "the launcher waited for it, although nothing else ran"

    def test_another_one_takes_the_place_meanwhile(self, sqlite: Backend) -> None:
        study = make(sqlite, trials=1)
        nvidia = FakeNvidia(lambda slot, now: slot.label == "gpu:0", 1.0)
        assert self.launch(nvidia, study, [].append, TWO_CARDS)
        (row,) = Places.of(study).rows()
        assert row.worker.endswith("-gpu1")

    def test_no_device_left_ends_the_launch(self, sqlite: Backend) -> None:
        said: list[str] = []
        nvidia = FakeNvidia(lambda slot, now: True, 2.5)
        with pytest.raises(WorkersDieError, match="gpu:1 is full"):
            self.launch(nvidia, make(sqlite), said.append, TWO_CARDS)
        assert said == ["no more workers on gpu:0: gpu:0 is full"]
        assert nvidia.now > TROUBLE_S


@pytest.mark.usefixtures("fake_workers")
class TestGpusThatRunOutOfMemory:
    """Only a training shows it."""

    @pytest.fixture(autouse=True)
    def _gpu_1_is_bad(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("FAKE_FULL_CARD", "1")
        monkeypatch.setenv("FAKE_GATE", str(tmp_path / "gate"))

    def test_a_bad_one_spends_nothing_and_the_others_go_on(self, sqlite: Backend, tmp_path: Path) -> None:
        study, said = make(sqlite), []

        def say(line: str) -> None:
            """The good one holds its first place until the bad one has been given up."""
            said.append(line)
            (tmp_path / "gate").touch()

        assert launch(study, TWO_CARDS, say)
        assert said == ["no more workers on gpu:1: gpu:1 ran out of memory twice: the fake card is always full"]
        assert states(study) == [PlaceState.COMPLETE] * 4
        failed = [trial for trial in study.optuna.get_trials() if trial.state == TrialState.FAIL]
        assert [TrialFacts.of(trial).cause for trial in failed] == ["out of memory"] * 2

    def test_no_other_one_ends_the_launch_and_keeps_the_budget(self, sqlite: Backend) -> None:
        study, said = make(sqlite), []
        with pytest.raises(WorkersDieError, match="gpu:1 ran out of memory twice: the fake card is always full"):
            launch(study, TWO_CARDS[1:], said.append)
        assert said == []
        assert states(study) == [PlaceState.FREE] * 4

    def test_one_with_room_between_its_failures_goes_on(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("FAKE_GATE")
        monkeypatch.setenv("FAKE_FULL_AFTER", "1")
        study, said = make(sqlite), []
        assert launch(study, TWO_CARDS[:1], said.append)
        assert said == []
        assert states(study) == [PlaceState.COMPLETE] * 4
        assert len(study.optuna.get_trials()) == 7, "each process had room for one trial and not for the next"

    def test_workers_that_share_it_share_its_two_failures(
        self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("affinity_search.search.launch.launcher.trouble", lambda slot: None)
        study, said = make(sqlite), []
        with pytest.raises(WorkersDieError, match="gpu:1 ran out of memory twice"):
            launch(study, [card_slot(1, uuid="GPU-b")] * 3, said.append)
        assert len(said) <= 1
        attempts = study.optuna.get_trials()
        assert 2 <= len(attempts) <= 4, "each that ran, and one more"

    def test_sixteen_that_share_it_try_one_place_twice(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("affinity_search.search.launch.launcher.trouble", lambda slot: None)
        monkeypatch.setattr("affinity_search.search.launch.launcher.POLL_S", OFTEN_S)
        study = make(sqlite, trials=1)
        with pytest.raises(WorkersDieError, match="gpu:1 ran out of memory twice"):
            launch(study, [card_slot(1, uuid="GPU-b")] * 16, [].append)
        assert len(study.optuna.get_trials()) == 2, "none began between a worker's last word and its end"
        assert states(study) == [PlaceState.FREE]


@pytest.mark.usefixtures("fake_workers")
def test_no_more_workers_start_than_there_are_places_to_take(
    sqlite: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("affinity_search.search.launch.launcher.POLL_S", OFTEN_S)
    assert launch(make(sqlite, trials=1), [Slot("cpu", "cpu", 1, {})] * 6, [].append, logs=tmp_path / "logs")
    assert len(list((tmp_path / "logs").iterdir())) == 1


@pytest.mark.usefixtures("fake_workers")
def test_a_worker_that_hangs_before_its_first_claim_keeps_no_place_from_others(
    sqlite: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, now = WorkerProcess.start, 0.0
    hanging: list[subprocess.Popen[bytes]] = []

    def start_the_first_hanging(worker: WorkerProcess, *how: Any) -> None:
        if hanging:
            start(worker, *how)
        else:
            worker.new_command()
            worker.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            hanging.append(worker.process)

    def clock() -> float:
        nonlocal now
        now += START_S / 10
        return now

    def end_the_hanging_one() -> None:
        until(lambda: states(study) == [PlaceState.COMPLETE], "the other one to take the place")
        hanging[0].kill()

    monkeypatch.setattr(WorkerProcess, "start", start_the_first_hanging)
    monkeypatch.setattr("affinity_search.search.launch.launcher.POLL_S", OFTEN_S)
    study = make(sqlite, trials=1)
    beside = threading.Thread(target=end_the_hanging_one)
    beside.start()
    assert launch(study, [Slot("cpu", "cpu", 1, {})] * 2, [].append, clock=clock)
    beside.join()
