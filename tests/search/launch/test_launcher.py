"""The launcher and its real worker processes; only the training inside them is a fake that waits at a gate."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from conftest import Cli, Start, Started
from making import TINY, make, trained
from optuna.trial import TrialState
from postgres_server import PASSWORD, SECRETIVE, Server
from waiting import until
from watching import logs, rows, waiting

from affinity_search.search.devices.slots import Slot
from affinity_search.search.launch.launcher import Launcher
from affinity_search.search.worker.exits import Exit
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.stored.agenda import Agenda, OneStudy
from affinity_search.storage.study import StoredStudy, load_study
from affinity_search.storage.trials.facts import TrialFacts, attempts_at
from affinity_search.storage.trials.seeds import trial_seed


@pytest.fixture
def study(backend: Backend) -> StoredStudy:
    return make(backend)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def launch(study: StoredStudy, database_url: str, start: Start, gate: Path) -> Started:
    """Two workers; each has reported the first epoch of its trial and waits."""
    began = start("launch", "tiny", "--workers", "2", AFFINITY_SEARCH_STORAGE=database_url, FAKE_GATE=str(gate))
    until(lambda: len(waiting(study)) == 2, "two trials to wait at the gate")
    return began


class TestToTheEnd:
    def test_two_workers_use_every_place(self, launch: Started, study: StoredStudy, gate: Path) -> None:
        gate.touch()
        assert launch.ended() == 0
        assert [row.state for row in rows(study)] == [PlaceState.COMPLETE] * 4
        assert len(study.optuna.trials) == 4
        assert "4 of 4 trials done: 4 complete, 0 pruned, 0 failed; 0 running; 4 attempts" in launch.said
        assert "next: affinity-search evaluate tiny" in launch.said
        assert len(list(logs(launch).iterdir())) == 2

    def test_fewer_trials_of_a_finished_study_change_nothing(
        self, sqlite: Backend, sqlite_url: str, start: Start
    ) -> None:
        study = trained(sqlite)
        before = rows(study)
        again = start("launch", "tiny", "--workers", "2", "--trials", "2", "--storage", sqlite_url)
        assert again.ended() == Exit.FAILED
        assert "has 4 places (4 used, 0 free), and places are never taken away: --trials 2 has no effect" in again.said
        assert rows(study) == before

    def test_more_trials_continue_a_finished_study(self, sqlite: Backend, sqlite_url: str, start: Start) -> None:
        study = trained(sqlite)
        again = start("launch", "tiny", "--trials", "6", "--storage", sqlite_url)
        assert again.ended() == 0
        assert "places raised from 4 to 6" in again.said
        assert len(rows(study, PlaceState.COMPLETE)) == len(rows(study)) == 6


class TestDeaths:
    def test_a_killed_worker_s_trial_is_trained_again_alike(
        self, launch: Started, study: StoredStudy, gate: Path
    ) -> None:
        victim = waiting(study)[0]
        os.kill(victim.pid, signal.SIGKILL)
        until(lambda: waiting(study)[0].attempt == 2, "the next attempt at the place")
        again = waiting(study)[0]
        assert again.number == victim.number
        assert again.params == victim.params
        assert again.worker != victim.worker
        gate.touch()
        assert launch.ended() == 0
        assert [row.state for row in rows(study)] == [PlaceState.COMPLETE] * 4
        old, new = (study.optuna.trials[row.trial] for row in (victim, again))
        assert (old.state, new.state) == (TrialState.FAIL, TrialState.COMPLETE)
        assert old.params == new.params
        assert TrialFacts.of(old).seed == TrialFacts.of(new).seed == trial_seed(0, victim.number)
        assert (TrialFacts.of(old).attempt, TrialFacts.of(new).attempt) == (1, 2)
        assert f"worker {victim.worker} died (killed by SIGKILL)" in launch.said
        assert not [t for t in study.optuna.trials if t.state == TrialState.RUNNING]

    def test_a_place_that_kills_its_workers_is_used_up(self, sqlite: Backend, sqlite_url: str, start: Start) -> None:
        study = make(sqlite)
        fatal = str(trial_seed(0, 1))
        launch = start("launch", "tiny", "--workers", "1", AFFINITY_SEARCH_STORAGE=sqlite_url, FAKE_BROKEN=fatal)
        assert launch.ended() == 0
        states = [(row.state, row.attempt) for row in rows(study)]
        assert states[1] == (PlaceState.SPENT, 3)
        assert [states[0], *states[2:]] == [(PlaceState.COMPLETE, 1)] * 3
        assert launch.said.count("died (exit code 1)") == 3
        assert "the fake card fell off the bus" in launch.said

    def test_a_place_that_is_killed_every_time_is_spent_after_three(
        self, sqlite: Backend, sqlite_url: str, start: Start, gate: Path
    ) -> None:
        study = make(sqlite, trials=1)
        launch = start("launch", "tiny", "--workers", "1", "--storage", sqlite_url, FAKE_GATE=str(gate))
        for attempt in (1, 2, 3):
            (victim,) = until(lambda number=attempt: [row for row in waiting(study) if row.attempt == number], "it")
            os.kill(victim.pid, signal.SIGKILL)
        assert launch.ended() == Exit.NO_SCORE, launch.said
        (row,) = rows(study)
        assert (row.state, row.attempt) == (PlaceState.SPENT, 3)
        assert row.reason == "its worker died (killed by SIGKILL)"
        history = [(trial.state, TrialFacts.of(trial).reason) for trial in attempts_at(study, 0)]
        assert history == [(TrialState.FAIL, row.reason)] * 3, "with its history"

    def test_workers_that_never_begin_end_the_launch(self, sqlite: Backend, sqlite_url: str, start: Start) -> None:
        study = make(sqlite)
        last_words = "no such card [42]"
        launch = start("launch", "tiny", "--workers", "1", AFFINITY_SEARCH_STORAGE=sqlite_url, FAKE_DEAD=last_words)
        assert launch.ended() == 1
        *_, last = launch.said.splitlines()
        assert last.startswith("error: 3 workers in a row died on cpu before their first trial: no such card [42]")
        assert "Traceback" not in launch.said
        assert len(list(logs(launch).iterdir())) == 3
        assert [row.state for row in rows(study)] == [PlaceState.FREE] * 4

    def test_no_worker_outlives_its_launcher_s_failure(
        self, study: StoredStudy, fake_workers: None, gate: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail_when_both_wait(shown: Agenda, workers: Sequence[str]) -> None:
            if len(waiting(shown.studies[0])) == 2:
                raise RuntimeError("the terminal is gone")

        monkeypatch.setenv("FAKE_GATE", str(gate))
        slots = [Slot("cpu", "cpu", 1, {})] * 2
        launcher = Launcher(
            OneStudy(study), slots, None, show=fail_when_both_wait, say=lambda message: None, logs=gate.parent
        )
        with pytest.raises(RuntimeError, match="terminal"):
            launcher.run()
        assert [worker.process and worker.process.poll() for worker in launcher.workers] == [Exit.STOPPED] * 2
        assert [(row.state, row.attempt) for row in rows(study)] == [(PlaceState.FREE, 0)] * 4


class TestInterrupts:
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        """What signals do is the same for every database."""
        return sqlite_url

    def test_once_finishes_the_running_trials(self, launch: Started, study: StoredStudy, gate: Path) -> None:
        launch.interrupt()
        until(lambda: "finishing the running trials" in launch.said, "the launcher to hear it")
        # Each worker's log says so too; then it is certain that none of them begins another trial.
        told = "no new trial after this one"
        until(lambda: all(told in log.read_text() for log in logs(launch).iterdir()), "the workers to hear it")
        gate.touch()
        assert launch.ended() == Exit.STOPPED
        ends = [PlaceState.COMPLETE] * 2 + [PlaceState.FREE] * 2
        assert [row.state for row in rows(study)] == ends
        assert len(study.optuna.trials) == 2
        assert "2 of 4 trials done" in launch.said
        assert "stopped with 2 places free; to go on: affinity-search launch tiny" in launch.said
        assert "next: affinity-search evaluate" not in launch.said

    def test_twice_gives_them_back(self, launch: Started, study: StoredStudy) -> None:
        launch.interrupt()
        until(lambda: "finishing the running trials" in launch.said, "the launcher to hear it")
        launch.interrupt()
        assert launch.ended(20) == Exit.STOPPED
        assert "stopping now: running trials are given back" in launch.said
        assert [(row.state, row.attempt) for row in rows(study)] == [(PlaceState.FREE, 0)] * 4
        assert [t.state for t in study.optuna.trials] == [TrialState.FAIL] * 2

    def test_a_request_to_end_gives_them_back(self, launch: Started, study: StoredStudy) -> None:
        pids = [row.pid for row in waiting(study)]
        launch.process.terminate()
        assert launch.ended(20) == Exit.STOPPED
        assert [(row.state, row.attempt) for row in rows(study)] == [(PlaceState.FREE, 0)] * 4
        assert not any(map(psutil.pid_exists, pids))

    def test_before_any_worker_has_begun(self, sqlite: Backend, sqlite_url: str, start: Start, gate: Path) -> None:
        study = make(sqlite)
        launch = start("launch", "tiny", "--workers", "3", AFFINITY_SEARCH_STORAGE=sqlite_url, FAKE_GATE=str(gate))
        until(lambda: "logs in" in launch.said, "the launcher to begin")
        launch.interrupt()
        # It may hear it before its first worker is started: then it has nothing to finish.
        until(lambda: "finishing" in launch.said or "4 places free" in launch.said, "the launcher to hear it")
        gate.touch()
        assert launch.ended() == Exit.STOPPED
        assert len(rows(study, PlaceState.HELD)) == 0
        assert len(rows(study, PlaceState.COMPLETE)) <= 3


class TestSecrets:
    def test_the_password_is_shown_nowhere(self, postgres: Server, start: Start, gate: Path, cli: Cli) -> None:
        url = postgres.url(postgres.fresh_database(SECRETIVE), SECRETIVE, PASSWORD)
        environment = {"AFFINITY_SEARCH_STORAGE": url, "FAKE_GATE": str(gate)}
        launch = start("launch", TINY, "--workers", "1", forked=False, **environment)
        until(lambda: "logs in" in launch.said, "the launcher to begin")
        opened = open_backend(url, create=True)
        until(lambda: waiting(load_study(opened, "tiny")), "a trial to begin")
        children = psutil.Process(launch.process.pid).children(recursive=True)
        arguments = [" ".join(process.cmdline()) for process in children]
        assert any("worker" in line for line in arguments)
        gate.touch()
        assert launch.ended() == 0
        opened.close()
        everything = [*arguments, launch.said, *(log.read_text() for log in logs(launch).iterdir())]
        for secret in (PASSWORD, quote(PASSWORD), quote(PASSWORD, safe="")):
            assert not [text for text in everything if secret in text]

    def test_nor_when_the_server_goes_away(self, postgres: Server, start: Start, gate: Path) -> None:
        database = postgres.fresh_database(SECRETIVE)
        url = postgres.url(database, SECRETIVE) + f"?password={quote(PASSWORD, safe='')}"
        launch = start("launch", TINY, "--workers", "1", AFFINITY_SEARCH_STORAGE=url, FAKE_GATE=str(gate))
        until(lambda: "logs in" in launch.said, "the launcher to begin")
        opened = open_backend(url, create=True)
        until(lambda: waiting(load_study(opened, "tiny")), "a trial to begin")
        opened.close()
        postgres.execute(f"DROP DATABASE {database} WITH (FORCE)")
        gate.touch()
        assert launch.ended() == 1
        *_, last = launch.said.splitlines()
        assert last.startswith("error: "), launch.said
        everything = [launch.said, *(log.read_text() for log in logs(launch).iterdir())]
        assert not [text for text in everything if PASSWORD in text or quote(PASSWORD, safe="") in text]
        assert "Traceback" not in launch.said
