"""A search that finds nothing better closes its free places, once, and opens them when somebody asks for more."""

from collections.abc import Sequence
from typing import Any

import pytest
from conftest import Cli, Together
from hypothesis import given
from hypothesis import strategies as st
from making import TINY, holder, make, open_study, train, worker_for
from watching import LEASE_S, FakeClock, watch

from affinity_search.search.api.launching import Launching
from affinity_search.search.api.preparing import prepare
from affinity_search.search.view.publishing import Reporter, note_of
from affinity_search.search.view.snapshot import take
from affinity_search.search.worker.setup import WorkerOptions, sweep, work
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.errors import SmallerBudgetError
from affinity_search.storage.places import closing
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.closing import close_if_flat, flat_after, hindsight, is_flat
from affinity_search.storage.places.recovery import Recovery
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.study import StoredStudy, history
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.model.spec import StopSpec

FLAT = ("stop.patience=3", "stop.min_gain=0.01")
REASON = "no gain of more than 0.01 of macro F1 in the last 3 trials"


def rule(min_gain: float = 0.01, patience: int = 3) -> StopSpec:
    return StopSpec(min_gain=min_gain, patience=patience)


class TestTheRule:
    @pytest.mark.parametrize(
        ("values", "since", "flat"),
        [
            ([], 0, False),
            ([0.5] * 3, 0, False),  # nothing came before the last three
            ([0.5] * 4, 0, True),
            ([0.5, 0.5, 0.5, 0.48], 0, False),
            ([0.5, 0.48, 0.5, 0.5], 0, False),
            ([0.5, 0.48, 0.5, 0.5, 0.5], 0, True),
            ([0.5, 0.5, 0.5, 0.49], 0, True),  # a gain of just min_gain is none, however 0.5 - 0.49 is rounded
            ([0.5, 0.497, 0.494, 0.491], 0, True),  # small steps count together
            ([0.5, 0.496, 0.492, 0.488], 0, False),
            ([0.5, 0.9, 0.9, 0.9], 0, True),  # worse ones are no gain
            ([0.5] * 6, 4, False),  # two ended since somebody asked for more
            ([0.5] * 7, 4, True),
            ([0.3, *[0.5] * 3, *[0.4] * 3], 4, True),  # what came before counts as the best
        ],
    )
    def test_when_a_search_is_flat(self, values: list[float], since: int, flat: bool) -> None:
        assert is_flat(values, rule(), since) == flat

    @given(
        st.lists(st.integers(0, 30).map(lambda number: number / 100), max_size=30),
        st.sampled_from([0.0, 0.01, 0.05]),
        st.integers(1, 6),
    )
    def test_it_is_what_the_study_file_says(self, values: list[float], min_gain: float, patience: int) -> None:
        """Spelt out: the best before the last `patience`, less the best within them."""
        asked = rule(min_gain, patience)

        def spelt_out(told: Sequence[float]) -> bool:
            before, last = told[:-patience], told[-patience:]
            return bool(before) and min(before) - min(last) <= min_gain + 1e-9

        assert is_flat(values, asked) == spelt_out(values)
        flat = [number for number in range(1, len(values) + 1) if spelt_out(values[:number])]
        assert flat_after(values, asked) == (flat[0] if flat else None)


def finish(study: StoredStudy, value: float | None, state: PlaceState = PlaceState.COMPLETE) -> None:
    """The next free place ends so."""
    places = Places.of(study)
    claim = places.claim(holder())
    assert claim is not None
    places.begin(claim, claim.number, {"lambda": 0.1, "sigma": 5.0, "n_centers": 2})
    reason = None if value is not None else "nan"
    places.finish(claim, state, value=value, cause=reason, reason=reason)


def flat_study(backend: Backend, trials: int = 10, values: Sequence[float] = (0.5,) * 4) -> StoredStudy:
    """One that is flat and still open, as a worker leaves it that dies between a place's end and the look."""
    study = make(backend, trials=trials, overrides=FLAT)
    for value in values:
        finish(study, value)
    return study


def states(study: StoredStudy) -> list[str]:
    return [row.state.value for row in Places.of(study).rows()]


def texts(study: StoredStudy, *kinds: str) -> list[str]:
    return [event["text"] for event in history(study) if event["kind"] in kinds]


def ask_for(backend: Backend, trials: int) -> list[str]:
    return open_study(backend, "tiny", trials=trials)[1]


class TestClosing:
    def test_the_free_places_are_closed_with_the_reason(self, backend: Backend) -> None:
        study = flat_study(backend)
        said = close_if_flat(study)
        assert said == f"closed 6 of 10 places: {REASON}; to go on: affinity-search launch tiny --trials 10"
        assert states(study) == ["complete"] * 4 + ["closed"] * 6
        assert texts(study, "closed") == [f"6 of 10 places: {REASON}"]
        row = Places.of(study).rows(PlaceState.CLOSED)[0]
        assert (row.reason, row.is_used) == (REASON, False)
        assert abs((row.finished_at or 0) - backend.time()) < 60
        counts = Places.of(study).counts()
        assert (counts.total, counts.used, counts.free, counts.closed) == (4, 4, 0, 6)
        assert close_if_flat(study) is None
        assert Places.of(study).claim(holder()) is None

    def test_without_the_table_nothing_is_closed(self, sqlite: Backend) -> None:
        study = make(sqlite, trials=10)
        for _ in range(8):
            finish(study, 0.5)
        assert close_if_flat(study) is None

    def test_failed_places_do_not_count_and_pruned_ones_do(self, sqlite: Backend) -> None:
        study = flat_study(sqlite, values=[0.5, 0.5])
        finish(study, None, PlaceState.SPENT)
        finish(study, 0.6, PlaceState.PRUNED)
        assert close_if_flat(study) is None
        finish(study, 0.7, PlaceState.PRUNED)
        assert close_if_flat(study) is not None

    def test_the_stored_rule_counts_not_the_one_that_was_read(self, sqlite: Backend) -> None:
        study = flat_study(sqlite)
        open_study(sqlite, "tiny", overrides=["stop=none"])
        assert close_if_flat(study) is None
        assert "closed" not in states(study)

    def test_a_stale_look_closes_nothing(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        """Between its look and its write others have closed the places, and a person has opened them again."""
        study, is_due, looks = flat_study(sqlite), closing._is_due, []

        def overtaken(*args: Any) -> bool:
            looks.append(is_due(*args))
            return looks[-1]

        monkeypatch.setattr(closing, "_is_due", overtaken)
        transaction, calls = type(sqlite).transaction, []

        def others_first(backend: Backend, work: Any) -> Any:
            calls.append(work)
            if len(calls) == 2:  # the first was the look
                monkeypatch.undo()
                assert close_if_flat(study) is not None
                ask_for(sqlite, 10)
            return transaction(backend, work)

        monkeypatch.setattr(type(sqlite), "transaction", others_first)
        assert close_if_flat(study) is None
        assert looks == [True]
        assert states(study).count("free") == 6

    def test_several_processes_at_once_close_once(
        self, backend: Backend, database_url: str, together: Together
    ) -> None:
        study = flat_study(backend, trials=40)
        said = together("close_if_flat", database_url, ["1"] * 6)
        assert sorted(line is None for line in said) == [False] + [True] * 5
        assert texts(study, "closed") == [f"36 of 40 places: {REASON}"]

    def test_workers_that_take_places_meanwhile_end_theirs(
        self, backend: Backend, database_url: str, together: Together
    ) -> None:
        """No place is both trained and closed, and none stays open."""
        study = make(backend, trials=60, overrides=FLAT)
        ended = together("work", database_url, [f"w{number}" for number in range(4)])
        rows, counts = Places.of(study).rows(), Places.of(study).counts()
        assert (counts.free, counts.running) == (0, 0)
        assert sum(ended) == counts.used == counts.complete < 60
        assert counts.closed == 60 - counts.used > 0
        assert {row.state for row in rows} == {PlaceState.COMPLETE, PlaceState.CLOSED}
        assert all((row.trial is None) == (row.state == PlaceState.CLOSED) for row in rows)
        assert len(study.optuna.trials) == counts.used
        inside = sorted((row.finished_at, row.number, row.value) for row in rows if row.value is not None)
        assert flat_after([value for _, _, value in inside if value is not None], rule()) is not None

    def test_a_held_place_runs_to_its_end_and_one_given_back_is_closed_too(self, sqlite: Backend) -> None:
        study = make(sqlite, trials=10, overrides=FLAT)
        first, second = (Places.of(study).claim(holder()) for _ in range(2))
        for _ in range(4):
            finish(study, 0.5)
        assert close_if_flat(study) is not None
        assert first is not None
        assert second is not None
        Places.of(study).give_back(second, "a test")
        assert states(study)[:2] == ["held", "free"]
        assert close_if_flat(study) is not None
        Places.of(study).finish(first, PlaceState.COMPLETE, value=0.1)
        assert states(study) == ["complete", "closed", *["complete"] * 4, *["closed"] * 4]
        assert take(study).counts.total == 5, "the gain stays; a person may open the others again"


class TestWhoLooks:
    def test_the_worker_that_ended_a_place(self, sqlite: Backend, fake_training: None) -> None:
        study = make(sqlite, trials=40, overrides=["stop.patience=2", "stop.min_gain=0.9"])
        assert work(OneStudy(study), WorkerOptions("cpu")) == 3
        assert states(study) == ["complete"] * 3 + ["closed"] * 37

    def test_a_worker_before_its_first_place(self, sqlite: Backend, fake_training: None) -> None:
        study = flat_study(sqlite)
        assert work(OneStudy(study), WorkerOptions("cpu")) == 0
        assert "free" not in states(study)

    def test_a_recovery_thread(self, sqlite: Backend) -> None:
        study = flat_study(sqlite)
        clock = FakeClock()
        lines = watch(Recovery(study, clock, every_s=LEASE_S), clock, LEASE_S)
        assert [line.partition(":")[0] for line in lines] == ["closed 6 of 10 places"]

    def test_a_launch_before_its_workers(self, sqlite: Backend) -> None:
        study = flat_study(sqlite)
        prepare(OneStudy(study), Launching(1, "cpu", 1, (), None, None, None, 60.0, 60.0), print)
        assert "free" not in states(study)


class TestReopening:
    @pytest.fixture
    def study(self, backend: Backend) -> StoredStudy:
        study = flat_study(backend)
        close_if_flat(study)
        return study

    def test_some_of_them(self, study: StoredStudy, backend: Backend) -> None:
        assert ask_for(backend, 7) == ["3 closed places"]
        assert states(study) == ["complete"] * 4 + ["free"] * 3 + ["closed"] * 3
        assert texts(study, "reopened", "raised") == ["3 closed places"]
        assert study.refreshed().spec.trials == 10
        row = Places.of(study).rows(PlaceState.FREE)[0]
        assert (row.reason, row.finished_at) == (None, None)

    def test_all_of_them_and_more(self, study: StoredStudy, backend: Backend) -> None:
        assert ask_for(backend, 12) == ["6 closed places", "places raised from 10 to 12"]
        assert states(study) == ["complete"] * 4 + ["free"] * 8

    def test_as_many_as_there_are_opens_none(self, study: StoredStudy, backend: Backend) -> None:
        assert ask_for(backend, 4) == []
        assert "free" not in states(study)

    def test_fewer_are_refused(self, study: StoredStudy, backend: Backend) -> None:
        with pytest.raises(
            SmallerBudgetError, match=r"4 places \(4 used, 0 free\) beside 6 closed ones.*N above 4 opens"
        ):
            ask_for(backend, 3)

    def test_the_number_of_a_file_opens_none(self, study: StoredStudy, backend: Backend) -> None:
        open_study(backend, TINY, overrides=FLAT)
        assert "free" not in states(study)

    def test_the_patience_begins_anew(self, study: StoredStudy, backend: Backend) -> None:
        ask_for(backend, 10)
        for _ in range(2):
            finish(study, 0.6)
            assert close_if_flat(study) is None
        finish(study, 0.6)
        assert close_if_flat(study) is not None
        assert states(study) == ["complete"] * 7 + ["closed"] * 3

    def test_after_places_were_raised_too(self, backend: Backend) -> None:
        """A person who asks for three more places gets three."""
        study = flat_study(backend, trials=4)
        assert close_if_flat(study) is None, "nothing is free"
        ask_for(backend, 20)
        finish(study, 0.5)
        assert close_if_flat(study) is None

    def test_an_interrupted_trial_goes_on_from_its_checkpoint(self, sqlite: Backend) -> None:
        study = make(sqlite, trials=10, overrides=FLAT)
        worker = worker_for(study)

        def others_find_nothing() -> bool:
            assert worker.attempt is not None
            if worker.attempt.epochs:
                for _ in range(4):
                    finish(study, 0.99)
            return bool(worker.attempt.epochs)

        claim = worker.places.claim(worker.holder)
        assert claim is not None
        worker.run(claim, others_find_nothing)
        close_if_flat(study)
        assert states(study)[0] == "closed"
        sweep(worker.files, worker.places)
        ask_for(sqlite, 10)
        train(study, most=1)
        place = Places.of(study).rows()[0]
        first, again = (study.optuna.trials[number] for number in (0, place.trial or 0))
        assert (place.state, again.params) == (PlaceState.COMPLETE, first.params)
        assert TrialFacts.of(again).resumed_epochs == 1


class TestViews:
    def test_the_commands_say_when_and_why(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        study = flat_study(sqlite)
        close_if_flat(study)
        at = "--storage", sqlite_url
        said = f"closed 6 of 10 places: {REASON}; to go on: affinity-search launch tiny --trials 10"
        shown = cli("status", "tiny", *at).out
        assert said in shown
        assert "4 of 4 trials done: 4 complete, 0 pruned, 0 failed; 0 running; 6 places closed" in shown
        assert f"closed: 6 of 10 places: {REASON}" in shown, "with its time, in the history"
        assert "closed" in cli("status", *at).out
        assert said in cli("launch", "tiny", "--devices", "cpu", *at).err
        assert said in cli("worker", "tiny", "--device", "cpu", *at).err
        assert "4 of 4 used, 0 free, 0 held, 6 closed" in cli("doctor", "tiny", *at).out
        note = note_of(study, Places.of(study).counts(), [])
        assert said in note
        assert "ends when it is flat: min_gain = 0.01, patience = 3" in note
        assert len(study.optuna.trials) == 0

    def test_as_json(self, sqlite: Backend) -> None:
        study = flat_study(sqlite)
        assert take(study).to_dict()["closed"] is None
        close_if_flat(study)
        found = take(study).to_dict()
        assert found["counts"]["closed"] == 6
        assert {key: found["closed"][key] for key in ("places", "of", "reason")} == {
            "places": 6,
            "of": 10,
            "reason": REASON,
        }

    def test_the_note_is_written_again(self, sqlite: Backend) -> None:
        study = flat_study(sqlite)
        reporter = Reporter(study)
        reporter.write()
        close_if_flat(study)
        assert reporter.write()


class TestHindsight:
    def ended(self, backend: Backend, values: Sequence[float], trials: int = 12, **kept: Any) -> StoredStudy:
        study = make(backend, trials=trials, **kept)
        for value in values:
            finish(study, value)
        return study

    def test_when_it_would_have_stopped(self, sqlite: Backend) -> None:
        study = self.ended(sqlite, [0.5, 0.5, 0.5, 0.5, 0.5, 0.485, 0.48])
        found = hindsight(study, rule())
        assert found is not None
        assert found.text == (
            "[stop] with min_gain = 0.01, patience = 3 would have ended this search after 4 of 12 trials: 8 trainings "
            "less; the best since then: +2.0 points"
        )
        assert found.to_dict() == {"after": 4, "of": 12, "gain": 0.5 - 0.48, "min_gain": 0.01, "patience": 3}

    def test_failed_trials_are_trials_too(self, sqlite: Backend) -> None:
        study = make(sqlite, trials=12)
        finish(study, None, PlaceState.SPENT)
        for _ in range(4):
            finish(study, 0.5)
        found = hindsight(study, rule())
        assert found is not None
        assert (found.after, found.gain) == (5, 0.0)
        assert found.text.endswith("the best since then: no better")

    def test_it_would_not_have_stopped_or_saved_nothing(self, sqlite: Backend) -> None:
        assert hindsight(self.ended(sqlite, [0.5, 0.4, 0.3, 0.2, 0.1]), rule()) is None
        assert hindsight(self.ended(sqlite, [0.5] * 4, trials=4, name="ended"), rule()) is None

    def test_it_has_the_rule(self, sqlite: Backend) -> None:
        assert hindsight(flat_study(sqlite), rule()) is None

    def test_status_says_it_with_the_default_values(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        self.ended(sqlite, [0.5] * 24, trials=30)
        shown = cli("status", "tiny", "--storage", sqlite_url).out
        assert "[stop] with min_gain = 0.002, patience = 20 would have ended this search after 21 of 30 trials" in shown


class TestWhereItIsRefused:
    def test_final_runs_and_the_searches_of_a_comparison(self, sqlite: Backend) -> None:
        from affinity_search.storage.stored.planning import plan_final_runs

        search = make(sqlite, overrides=FLAT)
        train(search)
        final = plan_final_runs(search, {0: {"lambda": 0.1, "sigma": 5.0, "n_centers": 2}}, 3)
        assert final.spec.stop is None
        with pytest.raises(StudyFileError, match="stop: not allowed for final runs"):
            open_study(sqlite, final.name, overrides=["stop.patience=2"])
