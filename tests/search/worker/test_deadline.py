"""A worker that was asked to stop now is gone in time, even if its main thread does not answer."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from conftest import Start
from making import attempt_at, holder, make, reported
from optuna.trial import TrialState
from waiting import until

from affinity_search.search.worker.attempt import Attempt
from affinity_search.search.worker.exits import Exit
from affinity_search.search.worker.stopping import Deadline, StopSignals
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import Cause, PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts


class Exits:
    """In place of os._exit."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.called = threading.Event()

    def __call__(self, code: int) -> None:
        self.codes.append(code)
        self.called.set()


class TestDeadline:
    @pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT, signal.SIGINT]])
    def test_who_does_not_leave_is_ended_after_a_last_resort(self, numbers: list[signal.Signals]) -> None:
        exits, saved = Exits(), threading.Event()
        with StopSignals(), Deadline(saved.set, grace_s=0.05, exit_now=exits):
            for number in numbers:
                signal.raise_signal(number)
            assert exits.called.wait(10)
        assert saved.is_set()
        assert exits.codes == [Exit.STOPPED]

    def test_who_leaves_in_time_is_left_alone(self) -> None:
        exits = Exits()
        with StopSignals(), Deadline(pytest.fail, grace_s=30, exit_now=exits):
            signal.raise_signal(signal.SIGTERM)
        assert not exits.codes

    def test_one_interrupt_lets_the_trial_finish(self) -> None:
        exits = Exits()
        with StopSignals(), Deadline(pytest.fail, grace_s=0, exit_now=exits):
            signal.raise_signal(signal.SIGINT)
            assert not exits.called.wait(0.2)

    def test_a_last_resort_that_hangs_does_not_keep_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("affinity_search.search.worker.stopping.LAST_RESORT_S", 0.05)
        exits, never = Exits(), threading.Event()
        with StopSignals(), Deadline(lambda: never.wait(60) and None, grace_s=0.05, exit_now=exits):
            signal.raise_signal(signal.SIGTERM)
            assert exits.called.wait(10)
        never.set()

    def test_a_main_thread_deep_in_c(self) -> None:
        """Python's own handlers would wait until this multiplication ends, in a minute or so."""
        code = (
            "from affinity_search.search.worker.stopping import Deadline\n"
            "from affinity_search.search.worker.stopping import StopSignals\n"
            "import numpy as np, sys\n"
            "with StopSignals(), Deadline(lambda: print('saved', flush=True), grace_s=0.1):\n"
            "    print('begins', flush=True)\n"
            "    a = np.ones((12_000, 12_000)); a @ a @ a @ a @ a\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        time.sleep(1)  # until it is inside the multiplication; earlier would prove less, not fail
        process.terminate()
        assert process.stdout.readline() == "saved\n"
        assert process.wait(10) == Exit.STOPPED


class TestAbandoning:
    """What the last resort does to an attempt."""

    def test_the_place_comes_back_uncounted(self, backend: Backend) -> None:
        study, attempt = one_attempt(backend)
        from_elsewhere(attempt.abandon)
        row = Places.of(study).rows()[0]
        assert (row.state, row.attempt, row.cause) == (PlaceState.FREE, 0, "preempted")
        assert study.optuna.trials[0].state == TrialState.FAIL

    def test_one_that_is_ending_already_is_left_to_its_end(self, sqlite: Backend) -> None:
        study, attempt = one_attempt(sqlite)
        reported(attempt, 0.5).complete()
        from_elsewhere(attempt.abandon)
        assert Places.of(study).rows()[0].state == PlaceState.COMPLETE
        assert study.optuna.trials[0].state == TrialState.COMPLETE

    def test_nothing_ends_twice(self, sqlite: Backend) -> None:
        study, attempt = one_attempt(sqlite)
        reported(attempt, 0.5).complete()
        with pytest.raises(RuntimeError, match=r"trial 0 has ended \(complete\) and cannot end again \(diverged\)"):
            attempt.fail(Cause.DIVERGED, "too late")
        assert study.optuna.trials[0].state == TrialState.COMPLETE

    def test_an_end_that_has_begun_is_not_disturbed(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        study, attempt = one_attempt(sqlite)
        reported(attempt, 0.5)
        pause = Pause(attempt._places.finish)
        monkeypatch.setattr(attempt._places, "finish", pause)
        ending = threading.Thread(target=attempt.complete)
        ending.start()
        assert pause.begun.wait(10)
        attempt.abandon("given back")
        assert Places.of(study).rows()[0].state == PlaceState.HELD
        pause.over.set()
        ending.join(60)
        assert Places.of(study).rows()[0].state == PlaceState.COMPLETE
        assert study.optuna.trials[0].state == TrialState.COMPLETE

    def test_who_comes_to_its_end_while_it_is_abandoned_writes_nothing(
        self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study, attempt = one_attempt(sqlite)
        reported(attempt, 0.5)
        pause = Pause(attempt.save)
        monkeypatch.setattr(attempt, "save", pause)
        abandoning = threading.Thread(target=attempt.abandon, args=("given back",))
        abandoning.start()
        assert pause.begun.wait(10)
        ending = threading.Thread(target=attempt.complete, daemon=True)  # the process ends before it would go on
        ending.start()
        pause.over.set()
        abandoning.join(60)
        assert Places.of(study).rows()[0].state == PlaceState.FREE
        assert study.optuna.trials[0].state == TrialState.FAIL
        assert ending.is_alive()


class Pause:
    """Does what was given once the test lets it."""

    def __init__(self, then: Callable[..., object]) -> None:
        self.begun, self.over = threading.Event(), threading.Event()
        self._then = then

    def __call__(self, *arguments: object, **options: object) -> None:
        self.begun.set()
        assert self.over.wait(10)
        self._then(*arguments, **options)


def one_attempt(backend: Backend) -> tuple[StoredStudy, Attempt]:
    """At the first place of a new study."""
    study, holding = make(backend), holder()
    claim = Places.of(study).claim(holding)
    assert claim is not None
    return study, attempt_at(study, claim, holding)


def from_elsewhere(abandon: object) -> None:
    thread = threading.Thread(target=abandon, args=("given back",))  # type: ignore[arg-type]
    thread.start()
    thread.join(60)


def test_a_worker_that_hangs_in_a_step_is_gone_in_ten_seconds_and_nothing_is_lost(
    sqlite: Backend, start: Start
) -> None:
    study = make(sqlite, trials=1, overrides=["training.epochs=3"])
    worker = start("worker", "tiny", "--device", "cpu", "--storage", str(sqlite), FAKE_STUCK="1")
    until(lambda: "hangs in a step" in worker.said, "the step that hangs")
    asked = time.monotonic()
    worker.process.terminate()
    assert worker.ended() == Exit.STOPPED
    assert time.monotonic() - asked < 10
    row = Places.of(study).rows()[0]
    assert (row.state, row.attempt) == (PlaceState.FREE, 0)
    again = start("worker", "tiny", "--device", "cpu", "--storage", str(sqlite))
    assert again.ended() == 0, again.said
    assert TrialFacts.of(study.optuna.trials[-1]).resumed_epochs == 1
