"""Patience: what waits for a database that is away, and what does not."""

import sqlite3
import threading
from collections.abc import Callable

import pytest
from making import attempt_at, make, reported, worker_for
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError, OperationalError

from affinity_search.search.training.results import EpochScore
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.patience import Patience, at_once, is_transient
from affinity_search.storage.errors import StorageGoneError
from affinity_search.storage.places.claims import Places


def away(message: str = "server closed the connection unexpectedly") -> OperationalError:
    return OperationalError("SELECT 'secret'", {"password": "secret"}, sqlite3.OperationalError(message))


def wrapped(cause: Exception) -> StorageInternalError:
    """As Optuna wraps it."""
    try:
        raise StorageInternalError("An exception is raised during the commit.") from cause
    except StorageInternalError as error:
        return error


class FakeOutage:
    """Requests fail until the fake database is back."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.left = failures
        self.error = error or away()

    def __call__(self) -> str:
        if self.left > 0:
            self.left -= 1
            raise self.error
        return "answer"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def patience(told: list[str], monkeypatch: pytest.MonkeyPatch) -> Patience:
    """As a worker has it, without the pauses."""
    monkeypatch.setattr(Patience, "_sleep", lambda self, seconds: None)
    return Patience(told.append)


class TestTransient:
    @pytest.mark.parametrize(
        "error", [away(), away("database is locked"), wrapped(away())], ids=["connection", "lock", "inside Optuna's"]
    )
    def test_these_pass(self, error: Exception) -> None:
        assert is_transient(error)

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("bad data"),
            away("no such table: trials"),
            away("attempt to write a readonly database"),
            IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE constraint failed")),
            StorageInternalError("bad data"),
        ],
        ids=["value", "no table", "read-only", "integrity", "Optuna's own"],
    )
    def test_these_stay(self, error: Exception) -> None:
        assert not is_transient(error)


class TestPatience:
    def test_it_waits_and_says_so_once(self, patience: Patience, told: list[str]) -> None:
        assert patience.call(FakeOutage(5)) == "answer"
        assert len(told) == 2
        assert told[0].startswith("the storage is away (server closed the connection unexpectedly)")
        assert told[1].startswith("the storage is back after")
        assert "secret" not in "".join(told)

    def test_other_errors_come_at_once(self, patience: Patience, told: list[str]) -> None:
        outage = FakeOutage(5, ValueError("bad data"))
        with pytest.raises(ValueError, match="bad data"):
            patience.call(outage)
        assert outage.left == 4
        assert told == []

    def test_beyond_the_limit_it_is_one_clear_line(self, told: list[str]) -> None:
        with pytest.raises(StorageGoneError, match=r"the storage was away for 0 s \(server closed") as caught:
            Patience(told.append, limit_s=0.0).call(FakeOutage(10**6))
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_one_that_is_to_stop_does_not_wait(self, told: list[str]) -> None:
        with pytest.raises(StorageGoneError):
            Patience(told.append, give_up=lambda: True).call(FakeOutage(10**6))

    def test_at_once_holds_for_its_own_thread_only(self, patience: Patience) -> None:
        answers: list[str] = []
        with at_once():
            with pytest.raises(OperationalError):
                patience.call(FakeOutage(1))
            other = threading.Thread(target=lambda: answers.append(patience.call(FakeOutage(1))))
            other.start()
            other.join()
        assert answers == ["answer"]
        assert patience.call(FakeOutage(1)) == "answer"


class TestLostAnswers:
    """A commit can succeed and its answer be lost with the connection: the second try must find the first's work."""

    @pytest.fixture
    def losing(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """After a call of this, the next transaction commits, and its answer is lost."""
        once = Backend.transaction
        lose: list[bool] = []

        def transaction(self: Backend, work: Callable[..., object]) -> object:
            def request() -> object:
                answer = once(self, work)
                if lose:
                    lose.clear()
                    raise away()
                return answer

            return Patience(lambda line: None).call(request) if lose else once(self, work)

        monkeypatch.setattr(Patience, "_sleep", lambda self, seconds: None)
        monkeypatch.setattr(Backend, "transaction", transaction)
        return lambda: lose.append(True)

    def test_a_claim_is_made_once(self, backend: Backend, losing: Callable[[], None]) -> None:
        study = make(backend)
        worker = worker_for(study)
        losing()
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        assert [row.state for row in worker.places.rows()] == ["held", "free", "free", "free"]
        assert worker.places.rows()[0].lease == claim.lease
        assert worker.places.rows()[0].attempt == 1

    def test_an_end_is_no_loss(self, backend: Backend, losing: Callable[[], None]) -> None:
        study = make(backend)
        worker = worker_for(study)
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        attempt = reported(attempt_at(study, claim, worker.holder), 0.5)
        losing()
        attempt.complete()
        assert worker.places.rows()[0].value == 0.5
        assert study.optuna.get_trials()[0].state == TrialState.COMPLETE


class TestReports:
    def test_reports_wait_in_order_while_training_goes_on(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = make(backend)
        worker = worker_for(study)
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        attempt = attempt_at(study, claim, worker.holder)
        scores = self.scores(worker.trainer)
        report = attempt.record.trial.report

        def gone(value: float, step: int) -> None:
            raise away()

        monkeypatch.setattr(attempt.record.trial, "report", gone)
        attempt.report(scores[0])
        attempt.report(scores[1])
        assert study.optuna.get_trials()[0].intermediate_values == {}

        monkeypatch.setattr(attempt.record.trial, "report", report)
        attempt.complete()
        kept = study.optuna.get_trials()[0].intermediate_values
        assert kept == {score.epoch: 1.0 - score.scores.macro_f1 for score in scores}
        assert Places.of(study).counts().complete == 1

    def scores(self, trainer: StudyTrainer) -> list[EpochScore]:
        return list(trainer.epochs({"lambda": 0.5, "sigma": 50.0, "n_centers": 1}, 1))[:2]
