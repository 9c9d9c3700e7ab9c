"""Leases and recovery: what dead workers leave behind is made good, and nothing of the living is touched."""

from typing import Any

import pytest
from making import attempt_at, holder, make, reported, train, worker_for
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from waiting import until
from watching import LEASE_S, FakeClock, watch

from affinity_search.search.worker.attempt import Attempt
from affinity_search.storage import DEFAULT_LEASE_S
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.errors import LostPlaceError
from affinity_search.storage.places.claims import Claim, Places
from affinity_search.storage.places.leases import LeaseKeeper
from affinity_search.storage.places.place import Place
from affinity_search.storage.places.recovery import Recovery
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.proposing import ask
from affinity_search.storage.trials.record import end_trial


@pytest.fixture
def study(backend: Backend) -> StoredStudy:
    return make(backend)


@pytest.fixture
def places(study: StoredStudy) -> Places:
    return Places.of(study, LEASE_S)


def begun(study: StoredStudy, places: Places) -> tuple[Claim, Attempt]:
    """A claimed place whose worker then falls silent."""
    holding = holder()
    claim = places.claim(holding)
    assert claim is not None
    return claim, attempt_at(study, claim, holding, python="3")


def row(places: Places, number: int = 0) -> Place:
    return places.rows()[number]


def over(study: StoredStudy, places: Places) -> None:
    """Wait until the database's clock has passed the lease of place 0."""
    until(lambda: study.backend.time() > row(places).lease_until, "the end of the lease")


class TestExpiry:
    def test_a_silent_place_comes_back_with_its_parameters_and_a_counted_attempt(
        self, study: StoredStudy, places: Places
    ) -> None:
        claim, attempt = begun(study, places)
        over(study, places)
        clock = FakeClock()
        lines = watch(Recovery(study, clock), clock, LEASE_S * 1.5)

        assert [line for line in lines if "was silent for" in line]
        assert row(places).state == PlaceState.FREE
        again = places.claim(holder())
        assert again is not None
        assert (again.number, again.attempt, again.params) == (claim.number, 2, attempt.params)

    def test_its_trial_becomes_fail(self, study: StoredStudy, places: Places) -> None:
        _, attempt = begun(study, places)
        over(study, places)
        clock = FakeClock()
        recovery = Recovery(study, clock)
        watch(recovery, clock, LEASE_S * 1.5)
        assert study.optuna.get_trials()[attempt.number].state == TrialState.FAIL

    def test_the_observer_must_have_watched_for_a_full_lease(self, study: StoredStudy, places: Places) -> None:
        """After an outage every lease is over by the database's clock: the first one back must not expire everybody."""
        begun(study, places)
        over(study, places)
        clock = FakeClock()
        assert watch(Recovery(study, clock), clock, LEASE_S * 0.7) == []
        assert row(places).state == PlaceState.HELD

    def test_a_look_reads_nothing_of_what_trials_in_training_told(self, study: StoredStudy, places: Places) -> None:
        """Each worker of a team looks every ten seconds: the work would grow with the square of the team."""
        for _ in range(3):
            reported(begun(study, places)[1], 0.5)
        recovery = Recovery(study, FakeClock())
        statements: list[str] = []
        for engine in {study.backend.engine, study.backend.rdb.engine}:
            event.listen(engine, "before_cursor_execute", lambda *seen: statements.append(seen[2]))
        recovery.look()
        assert statements
        told = ("trial_intermediate_values", "trial_user_attributes", "trial_params")
        assert [one for one in statements if any(table in one for table in told)] == []

    def test_a_gap_between_looks_starts_the_watch_anew(self, study: StoredStudy, places: Places) -> None:
        begun(study, places)
        over(study, places)
        clock = FakeClock()
        recovery = Recovery(study, clock)
        recovery.look()
        clock.now += 40.0  # an observer looks every 10 s
        assert recovery.look() == []
        assert row(places).state == PlaceState.HELD

    def test_a_renewal_between_looks_starts_the_watch_anew(self, study: StoredStudy, places: Places) -> None:
        claim, _ = begun(study, places)
        over(study, places)
        clock = FakeClock()
        recovery = Recovery(study, clock)
        watch(recovery, clock, LEASE_S * 0.8)
        places.renew(claim)
        over(study, places)
        assert watch(recovery, clock, LEASE_S * 0.8) == []

    def test_a_renewal_after_the_look_wins_over_the_expiry(self, study: StoredStudy, places: Places) -> None:
        claim, _ = begun(study, places)
        over(study, places)
        stale = row(places)
        places.renew(claim)
        assert not places.expire(stale, "too late")
        assert row(places).state == PlaceState.HELD

    def test_two_observers_expire_once(self, study: StoredStudy, places: Places) -> None:
        begun(study, places)
        over(study, places)
        stale = row(places)
        assert [places.expire(stale, "first"), places.expire(stale, "second")] == [True, False]
        assert row(places).reason == "first"

    def test_the_last_attempt_is_spent(self, study: StoredStudy, places: Places) -> None:
        for attempt in (1, 2, 3):
            claim = places.claim(holder())
            assert claim is not None
            assert (claim.number, claim.attempt) == (0, attempt)
            over(study, places)
            assert places.expire(row(places), f"died {attempt}")
        assert row(places).state == PlaceState.SPENT
        assert row(places).reason == "died 3"

    def test_the_old_holder_learns_it_and_overwrites_nothing(self, study: StoredStudy, places: Places) -> None:
        claim, attempt = begun(study, places)
        reported(attempt, 1.0)
        over(study, places)
        places.expire(row(places), "silent")
        train(study)
        value = row(places).value
        with pytest.raises(LostPlaceError):
            places.renew(claim)
        with pytest.raises(LostPlaceError):
            attempt.complete()
        assert row(places).value == value

    def test_a_worker_that_was_stopped_drops_its_trial_and_goes_on(
        self, study: StoredStudy, places: Places, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As after SIGSTOP: meanwhile its place was taken, trained by another, and its trial ended."""
        worker = worker_for(study)
        claim = places.claim(worker.holder)
        assert claim is not None
        training = worker.trainer.epochs

        def stopped(*arguments: Any, **options: Any) -> Any:
            worker.trainer.epochs = training  # type: ignore[method-assign]
            over(study, places)
            places.expire(row(places), "silent")
            end_trial(study, row(places).trial, TrialState.FAIL)
            train(study, most=1)
            return training(*arguments, **options)

        worker.trainer.epochs = stopped  # type: ignore[method-assign]
        assert not worker.run(claim, lambda: False)
        assert "others ended trial" in capsys.readouterr().err
        assert (row(places).state, row(places).attempt) == (PlaceState.COMPLETE, 2)
        assert [trial.state for trial in study.optuna.get_trials()] == [TrialState.FAIL, TrialState.COMPLETE]
        following = worker.places.claim(worker.holder)
        assert following is not None
        assert worker.run(following, lambda: False)


class TestHalves:
    """The place's row is written, the trial's end is missing."""

    def mended(self, study: StoredStudy, attempt: Attempt) -> Any:
        Recovery(study).look()
        return study.optuna.get_trials()[attempt.number]

    def test_complete(self, study: StoredStudy, places: Places) -> None:
        claim, attempt = begun(study, places)
        places.finish(claim, PlaceState.COMPLETE, value=0.25)
        trial = self.mended(study, attempt)
        assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.25)

    def test_pruned(self, study: StoredStudy, places: Places) -> None:
        claim, attempt = begun(study, places)
        places.finish(claim, PlaceState.PRUNED, value=0.25)
        trial = self.mended(study, attempt)
        assert (trial.state, trial.value) == (TrialState.PRUNED, 0.25)

    def test_one_that_an_older_version_pruned(self, study: StoredStudy, places: Places) -> None:
        """It wrote no value into the place's row, and Optuna took the last score."""
        claim, attempt = begun(study, places)
        reported(attempt, 0.5)
        places.finish(claim, PlaceState.PRUNED)
        trial = self.mended(study, attempt)
        assert (trial.state, trial.value) == (TrialState.PRUNED, 0.5)

    def test_a_worker_that_died_before_its_row_knew_the_trial(self, study: StoredStudy, places: Places) -> None:
        holding = holder()
        claim = places.claim(holding)
        assert claim is not None
        ask(study, claim, 0, holding, {}, "0" * 16, ())
        assert Recovery(study).look() == [], "it may be about to write the row"
        places.release_worker(holding.worker, "killed")
        assert places.claim(holder()) is not None, "another attempt that is beginning explains nothing"
        assert Recovery(study).look() == ["trial 0 closed as FAIL: its worker ended without closing it"]
        assert study.optuna.get_trials()[0].state == TrialState.FAIL

    def test_a_trial_of_another_program_is_left_to_it_for_a_lease(self, study: StoredStudy) -> None:
        study.optuna.ask()
        clock = FakeClock()
        recovery = Recovery(study, clock)
        assert watch(recovery, clock, DEFAULT_LEASE_S * 0.9, step=10.0) == []
        assert len(watch(recovery, clock, DEFAULT_LEASE_S * 0.2, step=10.0)) == 1

    def test_given_back(self, study: StoredStudy, places: Places) -> None:
        claim, attempt = begun(study, places)
        places.give_back(claim, "asked to")
        assert self.mended(study, attempt).state == TrialState.FAIL

    def test_a_trial_whose_place_went_on_without_it(self, study: StoredStudy, places: Places) -> None:
        claim, attempt = begun(study, places)
        places.give_back(claim, "asked to")
        train(study)
        assert row(places).trial != attempt.number
        assert self.mended(study, attempt).state == TrialState.FAIL

    def test_a_running_trial_is_left_alone(self, study: StoredStudy, places: Places) -> None:
        long_places = Places.of(study)
        _, attempt = begun(study, long_places)
        assert self.mended(study, attempt).state == TrialState.RUNNING

    def test_its_living_worker_does_not_mind(self, study: StoredStudy, places: Places) -> None:
        """Somebody saw the half between its two writes."""
        _, attempt = begun(study, places)
        reported(attempt, 0.75)
        end = attempt.record.end

        def late(*how: Any) -> None:
            assert len(Recovery(study).look()) == 1
            end(*how)

        attempt.record.end = late  # type: ignore[method-assign]
        attempt.complete()
        trial = study.optuna.get_trials()[attempt.number]
        assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.25)

    def test_a_second_recovery_finds_nothing_to_do(self, study: StoredStudy, places: Places) -> None:
        claim, attempt = begun(study, places)
        places.finish(claim, PlaceState.COMPLETE, value=0.25)
        self.mended(study, attempt)
        clock = FakeClock()
        assert watch(Recovery(study, clock), clock, 2 * DEFAULT_LEASE_S, step=10.0) == []


class TestKeeper:
    def test_a_kept_lease_goes_on(self, study: StoredStudy, places: Places) -> None:
        claim = places.claim(holder())
        assert claim is not None
        first = row(places).lease_until
        with LeaseKeeper(places, claim) as keeper:
            until(lambda: row(places).lease_until > first + LEASE_S, "renewals for a whole lease")
            assert not keeper.lost

    def test_it_tells_when_the_place_is_lost(self, study: StoredStudy, places: Places) -> None:
        claim = places.claim(holder())
        assert claim is not None
        with LeaseKeeper(places, claim) as keeper:
            places.give_back(claim, "behind its back")
            until(lambda: keeper.lost, "the keeper to notice")

    def test_a_failing_storage_does_not_end_it(
        self, study: StoredStudy, places: Places, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claim = places.claim(holder())
        assert claim is not None
        first, renew, failures = row(places).lease_until, places.renew, []

        def fail_twice(held: Claim) -> None:
            if len(failures) < 2:
                failures.append(held)
                raise OperationalError("UPDATE", {}, Exception("server closed the connection"))
            renew(held)

        monkeypatch.setattr(places, "renew", fail_twice)
        with LeaseKeeper(places, claim) as keeper:
            until(lambda: row(places).lease_until > first, "a renewal after two failures")
            assert not keeper.lost
