"""The budget: N places are used exactly once, whoever dies, stops or comes late. On both kinds of database."""

from collections import Counter

import pytest
from conftest import Together
from making import attempt_at, holder, make, reported, train, worker_for
from optuna.trial import TrialState
from sqlalchemy import event

from affinity_search.search.worker.attempt import Attempt
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.errors import LostPlaceError
from affinity_search.storage.places.claims import Claim, Places
from affinity_search.storage.places.place import Place
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.storage.trials.seeds import trial_seed


@pytest.fixture
def study(backend: Backend) -> StoredStudy:
    return make(backend)


@pytest.fixture
def places(study: StoredStudy) -> Places:
    return Places.of(study)


def claimed(places: Places, worker: str | None = None) -> Claim:
    claim = places.claim(holder(worker))
    assert claim is not None
    return claim


def row(places: Places, number: int = 0) -> Place:
    return places.rows()[number]


class TestManyWorkers:
    def test_four_processes_use_forty_places_exactly_once(
        self, backend: Backend, database_url: str, together: Together
    ) -> None:
        study = make(backend, trials=40)
        ended = together("work", database_url, [f"w{i}" for i in range(4)])
        assert sum(ended) == 40
        before = self.check(study)

        assert together("work", database_url, [f"late{i}" for i in range(4)]) == [0] * 4
        assert self.check(study) == before, "workers that come late change nothing"

    def check(self, study: StoredStudy) -> list[Place]:
        rows = Places.of(study).rows()
        assert [row.state for row in rows] == [PlaceState.COMPLETE] * 40
        assert [row.attempt for row in rows] == [1] * 40
        trials = study.optuna.get_trials()
        assert len(trials) == 40
        assert {t.state for t in trials} == {TrialState.COMPLETE}
        assert {row.trial for row in rows} == {t.number for t in trials}
        assert {TrialFacts.of(t).place for t in trials} == set(range(40))
        by_number = {t.number: t for t in trials}
        assert all(by_number[row.trial].params == row.params for row in rows)
        assert all(by_number[row.trial].value == row.value for row in rows)
        return rows

    def test_more_places_from_two_processes_at_the_same_moment(
        self, backend: Backend, database_url: str, together: Together
    ) -> None:
        study = make(backend)
        notes = together("raise_trials", database_url, ["9"] * 4)
        assert sorted(notes) == [[], [], [], ["places raised from 4 to 9"]]
        assert [row.number for row in Places.of(study).rows()] == list(range(9))


class TestClaims:
    def test_places_are_taken_in_order_until_none_is_free(self, places: Places) -> None:
        claims = [claimed(places) for _ in range(4)]
        assert [claim.number for claim in claims] == [0, 1, 2, 3]
        assert len({claim.lease for claim in claims}) == 4
        assert places.claim(holder()) is None

    def test_a_claim_says_who_holds_the_place(self, places: Places) -> None:
        claimed(places, "somebody")
        found = row(places)
        assert (found.worker, found.host, found.pid) == ("somebody", "this-host", 1)
        assert found.state == PlaceState.HELD
        assert places.was_claimed_by("somebody")
        assert not places.was_claimed_by("nobody")

    def test_other_studies_places_are_left_alone(self, backend: Backend, places: Places) -> None:
        other = make(backend, "other")
        assert train(other) == 4
        assert places.counts().free == 4

    def test_counts(self, places: Places) -> None:
        places.finish(claimed(places), PlaceState.COMPLETE, value=0.25)
        places.finish(claimed(places), PlaceState.SPENT, reason="a NaN")
        claimed(places)
        counts = {"total": 4, "used": 2, "running": 1, "complete": 1, "pruned": 0, "failed": 1, "closed": 0}
        assert places.counts().to_dict() == counts
        assert places.counts().free == 1

    def test_the_best_come_first_and_ties_go_to_the_first_place_whatever_its_attempts(self, places: Places) -> None:
        for trial, value in enumerate((0.5, 0.25, 0.5, 0.25)):
            claim = claimed(places)
            places.begin(claim, 10 - trial, {})
            places.finish(claim, PlaceState.COMPLETE, value=value)
        assert [found.trial for found in places.best_rows(3)] == [9, 7, 10]

    def test_mean_duration(self, places: Places) -> None:
        assert places.mean_duration_s() is None
        places.finish(claimed(places), PlaceState.PRUNED)
        mean = places.mean_duration_s()
        assert mean is not None
        assert 0 <= mean < 30


class TestComingBack:
    def test_a_place_given_back_is_not_counted_and_keeps_its_parameters(self, places: Places) -> None:
        claim = claimed(places)
        places.begin(claim, 0, {"sigma": 0.1})
        places.give_back(claim, "asked to stop")
        assert (row(places).state, row(places).attempt) == (PlaceState.FREE, 0)
        again = claimed(places)
        assert (again.number, again.attempt, again.params) == (0, 1, {"sigma": 0.1})
        assert again.lease != claim.lease

    def test_the_third_failure_uses_a_place_up(self, places: Places) -> None:
        ends = [places.fail_attempt(claimed(places), "RuntimeError", "the card fell off") for _ in range(3)]
        assert ends == [PlaceState.FREE, PlaceState.FREE, PlaceState.SPENT]
        assert row(places).reason == "the card fell off"
        assert claimed(places).number == 1

    def test_a_dead_worker_s_places_come_back(self, places: Places) -> None:
        dead, other = claimed(places, "dead"), claimed(places, "alive")
        places.begin(dead, 7, {})
        places.release_worker("dead", "killed")
        assert [found.state for found in places.rows()[:2]] == [PlaceState.FREE, PlaceState.HELD]
        places.begin(other, 8, {})

    def test_the_third_death_uses_a_place_up(self, places: Places) -> None:
        for number in range(3):
            assert claimed(places, "dead").number == 0
            places.release_worker("dead", f"death {number}")
        assert (row(places).state, row(places).attempt) == (PlaceState.SPENT, 3)
        assert row(places).finished_at is not None

    @pytest.mark.parametrize("late", ["begin", "finish", "give_back", "fail_attempt"])
    def test_who_has_lost_a_place_cannot_write_to_it(self, places: Places, late: str) -> None:
        lost = claimed(places, "slow")
        places.release_worker("slow", "thought dead")
        claimed(places, "quick")
        before = places.rows()
        given = {"begin": (3, {}), "finish": (PlaceState.COMPLETE,), "fail_attempt": ("diverged", "too late")}
        arguments = given.get(late, ("too late",))
        with pytest.raises(LostPlaceError, match="another worker holds place 0 now"):
            getattr(places, late)(lost, *arguments)
        assert places.rows() == before


class TestAttempts:
    """A place's row and its Optuna trial end alike."""

    def begun(self, study: StoredStudy) -> Attempt:
        worker = worker_for(study)
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        return reported(attempt_at(study, claim, worker.holder, python="3"), 0.75)

    @pytest.mark.parametrize(
        ("end", "arguments", "place", "trial"),
        [
            ("complete", (), PlaceState.COMPLETE, TrialState.COMPLETE),
            ("prune", (), PlaceState.PRUNED, TrialState.PRUNED),
            ("fail", ("diverged", "a NaN"), PlaceState.SPENT, TrialState.FAIL),
            ("retry_later", ("RuntimeError", "an error"), PlaceState.FREE, TrialState.FAIL),
            ("give_back", ("asked",), PlaceState.FREE, TrialState.FAIL),
        ],
    )
    def test_ends(
        self, study: StoredStudy, places: Places, end: str, arguments: tuple[object, ...], place: str, trial: TrialState
    ) -> None:
        attempt = self.begun(study)
        getattr(attempt, end)(*arguments)
        assert row(places).state == place
        assert study.optuna.trials[0].state == trial
        assert row(places).value == study.optuna.trials[0].value == (None if trial == TrialState.FAIL else 0.25)
        assert TrialFacts.of(study.optuna.trials[0]).seed == trial_seed(0, 0) == attempt.seed

    def test_the_row_decides_when_the_place_is_lost(self, study: StoredStudy, places: Places) -> None:
        attempt = self.begun(study)
        places.release_worker(str(row(places).worker), "thought dead")
        with pytest.raises(LostPlaceError):
            attempt.complete()
        assert row(places).state == PlaceState.FREE
        assert study.optuna.trials[0].state == TrialState.RUNNING

    def test_a_worker_whose_place_is_lost_drops_its_trial_and_goes_on(self, study: StoredStudy, places: Places) -> None:
        worker = worker_for(study, "slow")
        run = worker.trainer.epochs

        def lose_the_first(params: object, seed: int, *rest: object, **named: object) -> object:
            if seed == trial_seed(0, 0) and row(places).attempt == 1:
                places.release_worker("slow", "thought dead")
            return run(params, seed, *rest, **named)

        worker.trainer.epochs = lose_the_first  # type: ignore[assignment, method-assign]
        ended = []
        while claim := places.claim(worker.holder):
            ended.append(worker.run(claim, lambda: False))
        assert Counter(ended) == {True: 4, False: 1}
        states = [t.state for t in study.optuna.trials]
        assert states == [TrialState.FAIL, *[TrialState.COMPLETE] * 4]

    def test_a_place_lost_before_its_parameters_are_written_leaves_no_running_trial(
        self, study: StoredStudy, places: Places
    ) -> None:
        worker = worker_for(study, "slow")
        claim = claimed(places, "slow")
        places.release_worker("slow", "thought dead")
        assert worker.run(claim, lambda: False) is False
        assert [t.state for t in study.optuna.trials] == [TrialState.FAIL]


def test_claiming_is_one_statement(study: StoredStudy, places: Places) -> None:
    """Between a look and a write somebody else would take the same place."""
    statements: list[str] = []
    event.listen(study.backend.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    claimed(places)
    assert len(statements) == 1
    assert statements[0].startswith("UPDATE affinity_places")
