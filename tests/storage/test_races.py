"""What others do at the same moment: change the study, delete it, hold leases of another length."""

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
import pytest
from conftest import Cli
from making import holder, make, open_study, worker_for
from optuna.trial import TrialState
from waiting import until
from watching import FakeClock

from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.recovery import Recovery
from affinity_search.storage.stored.agenda import Agenda
from affinity_search.storage.trials.record import end_trial


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Overrides that somebody else applies just before the next process gets the lock."""
    waiting: list[list[str]] = []
    real = Backend.exclusive

    @contextmanager
    def exclusive(self: Backend) -> Iterator[None]:
        if waiting:
            open_study(self, "tiny", overrides=waiting.pop())
        with real(self):
            yield

    monkeypatch.setattr(Backend, "exclusive", exclusive)
    return waiting


class TestTwoLaunchers:
    def test_one_does_not_undo_what_the_other_changes(self, backend: Backend, meanwhile: list[list[str]]) -> None:
        make(backend, trials=4)
        meanwhile.append(["sampler.kind=random"])
        study, _ = open_study(backend, "tiny", trials=6)
        assert (study.spec.sampler.kind, study.spec.trials) == ("random", 6)

    def test_one_may_raise_the_trials_while_the_other_widens_the_space(
        self, backend: Backend, meanwhile: list[list[str]]
    ) -> None:
        before = make(backend, trials=4)
        high = before.spec.space["sigma"].high * 2  # type: ignore[union-attr]
        meanwhile.append([f"space.sigma.high={high}"])
        study, _ = open_study(backend, "tiny", trials=6)
        assert study.spec.space["sigma"].high == high  # type: ignore[union-attr]
        assert Places.of(study).counts().total == 6


def test_a_short_lease_ends_beside_a_long_one(backend: Backend) -> None:
    """One that looks rarely must still end a short lease, and a short one must not spoil its watch over others."""
    study = make(backend)
    short, long = Places.of(study, 0.01), Places.of(study, 60.0)
    assert short.claim(holder())
    assert long.claim(holder())
    until(lambda: backend.time() > short.rows()[0].lease_until, "the end of the short lease")
    clock = FakeClock()
    recovery = Recovery(study, clock, every_s=10.0)
    for _ in range(3):
        recovery.look()
        clock.now += 10.0
    assert [row.state for row in short.rows()[:2]] == [PlaceState.FREE, PlaceState.HELD]


class TestDeletion:
    def test_ending_a_trial_of_a_deleted_study_is_no_error(self, backend: Backend) -> None:
        study = make(backend)
        trial = study.optuna.ask()
        optuna.delete_study(study_name="tiny", storage=backend.optuna)
        end_trial(study, trial.number, TrialState.FAIL)

    def test_a_worker_whose_study_is_deleted_ends_with_one_sentence(
        self, sqlite: Backend, sqlite_url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(sqlite)

        def deleted(agenda: Agenda, options: object) -> int:
            worker = worker_for(agenda.studies[0])
            optuna.delete_study(study_name="tiny", storage=sqlite.optuna)
            claim = worker.places.claim(worker.holder)
            assert claim is not None
            return worker.run(claim, lambda: False)

        monkeypatch.setattr("affinity_search.search.worker.setup.work", deleted)
        ran = cli("worker", "tiny", "--device", "cpu", "--storage", sqlite_url, fails=True)
        assert ran.code == 1
        assert "Traceback" not in ran.err
        assert "was deleted while this command worked on it" in ran.err


@pytest.mark.parametrize("url", ["postgresql://me:geheim@2024@127.0.0.1:1/db", "postgresql://u:p@ss/w@127.0.0.1:1/db"])
def test_a_password_that_is_not_encoded_is_not_shown_in_part(url: str, cli: Cli) -> None:
    said = cli("status", "--storage", url, fails=True).refused()
    assert "percent-encoded" in said
    assert not any(part in said for part in ("geheim", "2024", "ss/w", "p@ss"))


def test_the_protocol_can_be_overridden(sqlite: Backend) -> None:
    study, _ = open_study(sqlite, "digits", name="a", overrides=["protocol=article", "data.validation=none"])
    assert study.spec.protocol == "article"
    assert study.spec.data.validation is None
