"""A share of the trials that the pruner would stop runs on, and tells how often it is wrong."""

import json
import math

import pytest
from conftest import Cli
from fake_objective import fake_scores
from making import attempt_at, holder, make, reported, train, trained
from optuna.exceptions import TrialPruned
from sqlalchemy.exc import OperationalError

from affinity_search.search.training.results import EpochScore
from affinity_search.search.view.notes import trial_note
from affinity_search.search.view.publishing import note_of
from affinity_search.search.view.standing import standing_of
from affinity_search.search.worker.attempt import Attempt
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Claim, Places
from affinity_search.storage.results.pruning import Ended, Pruning, pruning_of
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.storage.trials.seeds import is_audited

# The pruner that stops every trial after its second epoch.
ALL = ("training.epochs=3", "pruner.kind=halving", "pruner.min_resource=1", "pruner.bootstrap_count=1000")


def study_with(backend: Backend, audit: float, trials: int = 4) -> StoredStudy:
    return make(backend, trials=trials, overrides=[*ALL, f"pruner.audit={audit}"])


def claimed(study: StoredStudy, audited: bool) -> Claim:
    """The first place that is audited, or is not. The claims before it stay."""
    while claim := Places.of(study).claim(holder()):
        if is_audited(study.spec.seed, claim.number, study.spec.pruner.audit or 0.0) == audited:
            return claim
    raise AssertionError("no such place")


def told(attempt: Attempt, study: StoredStudy) -> int | None:
    return TrialFacts.of(study.optuna.trials[attempt.number]).audited_after


class TestWhichPlaces:
    def test_it_follows_from_seed_and_place_alone(self) -> None:
        """Literal numbers: another version or machine must not decide otherwise."""
        assert [place for place in range(60) if is_audited(0, place, 0.05)] == [7, 27, 47]
        assert [place for place in range(60) if is_audited(1, place, 0.05)] == [6, 26, 46]
        assert [place for place in range(12) if is_audited(0, place, 0.4)] == [0, 3, 5, 8, 10]

    @pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.5, 0.77, 0.99])
    def test_a_short_search_has_its_share_too(self, share: float) -> None:
        for seed in range(50):
            chosen = sum(is_audited(seed, place, share) for place in range(24))
            assert abs(chosen - 24 * share) < 1

    def test_each_place_has_the_same_chance(self) -> None:
        begins = [next(place for place in range(20) if is_audited(seed, place, 0.05)) for seed in range(2000)]
        counts = [begins.count(place) for place in range(20)]
        assert set(begins) == set(range(20))
        assert max(abs(count - 100) for count in counts) < 5 * math.sqrt(100)

    def test_a_share_of_nothing(self) -> None:
        assert not any(is_audited(0, place, 0.0) for place in range(1000))


class TestAnAttempt:
    def test_an_audited_one_runs_on_and_is_complete(self, sqlite: Backend) -> None:
        study = study_with(sqlite, 0.5, trials=8)
        claim = claimed(study, audited=True)
        attempt = reported(attempt_at(study, claim, holder()), 0.1, 0.2, 0.3)
        assert told(attempt, study) == 2, "stored when the pruner said so"
        attempt.complete()
        place = Places.of(study).rows_at(claim.number)[claim.number]
        assert (place.state, place.value) == (PlaceState.COMPLETE, 0.7)

    def test_another_one_is_stopped(self, sqlite: Backend) -> None:
        study = study_with(sqlite, 0.5, trials=8)
        attempt = attempt_at(study, claimed(study, audited=False), holder())
        with pytest.raises(TrialPruned):
            reported(attempt, 0.1, 0.2, 0.3)
        assert told(attempt, study) is None

    def test_after_an_interruption_it_is_the_same_and_nobody_asks_again(self, sqlite: Backend) -> None:
        """Even if nothing is audited any more."""
        study = study_with(sqlite, 0.5, trials=8)
        claim = claimed(study, audited=True)
        reported(attempt_at(study, claim, holder()), 0.1, 0.2).give_back("a test stops it")
        off = make(sqlite, trials=8, overrides=[*ALL, "pruner.audit=0"])
        (again,) = [each for each in iter(lambda: Places.of(off).claim(holder()), None) if each.number == claim.number]
        attempt = attempt_at(off, again, holder())
        attempt.record.trial.should_prune = pytest.fail  # type: ignore[method-assign, assignment]
        reported(attempt, 0.1, 0.2, 0.3).complete()
        assert told(attempt, off) == 2

    def test_a_storage_that_is_away_delays_the_mark_and_does_not_lose_it(
        self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = study_with(sqlite, 0.5, trials=8)
        attempt = attempt_at(study, claimed(study, audited=True), holder())
        with monkeypatch.context() as patched:

            def away(epochs: int) -> None:
                raise OperationalError("UPDATE", {}, Exception("server closed the connection unexpectedly"))

            patched.setattr(attempt.record, "tell_audited", away)
            reported(attempt, 0.1, 0.2)
        assert told(attempt, study) is None
        attempt.report(EpochScore(2, 0.5, fake_scores(0.3), 0.001))
        attempt.complete()
        assert told(attempt, study) == 2

    def test_a_whole_search(self, backend: Backend) -> None:
        study = study_with(backend, 0.4, trials=12)
        train(study)
        audited = [place for place in range(12) if is_audited(0, place, 0.4)]
        assert 0 < len(audited) < 12
        for row in Places.of(study).rows():
            assert row.state == (PlaceState.COMPLETE if row.number in audited else PlaceState.PRUNED)
        found = pruning_of(study)
        assert (found.stopped, found.epochs_saved) == (12 - len(audited), 12 - len(audited))
        assert (found.audited, found.epochs_cost) == (len(audited), len(audited))
        best = Places.of(study).best_rows(2)
        assert (found.best_tenth, found.among_best) == (2, sum(row.number in audited for row in best))


def complete(value: float, after: int | None = None, epochs: int = 10) -> Ended:
    return Ended(False, value, epochs, after)


def pruned(value: float | None, epochs: int) -> Ended:
    return Ended(True, value, epochs, None)


class TestFigures:
    def test_nothing_was_stopped(self) -> None:
        assert Pruning.of([complete(0.5)], 10, 0.05).text is None
        assert Pruning.of([], 10, 0.05).text is None

    def test_nothing_was_audited(self) -> None:
        ended = [complete(0.1), pruned(0.5, 2), pruned(None, 4)]
        found = Pruning.of(ended, 10, 0.05)
        assert (found.stopped, found.epochs_saved, found.interval) == (2, 14, None)
        assert found.text == (
            "pruning stopped 2 trials and saved 14 epochs; how often it was wrong is unknown: no trial that it would "
            "have stopped has run on yet (audit = 0.05)"
        )
        assert "nothing is audited (audit = 0)" in str(Pruning.of(ended, 10, 0.0).text)
        assert "%" not in str(found.text)

    @pytest.mark.parametrize(
        ("values", "value", "is_wrong"),
        [
            ([0.1], 0.2, 0),  # the best tenth of 2 is 1
            ([0.3], 0.2, 1),
            ([0.2], 0.2, 1),  # a tie with the last of the tenth
            ([0.1, *[0.5] * 8], 0.2, 0),  # of 10 it is 1
            ([0.1, *[0.5] * 9], 0.2, 1),  # of 11 it is 2
            ([0.1, 0.2, *[0.5] * 17], 0.2, 1),  # of 20 it is 2, and a third has the same value
            ([0.1, 0.1, *[0.5] * 17], 0.2, 0),
        ],
    )
    def test_the_best_tenth(self, values: list[float], value: float, is_wrong: int) -> None:
        ended = [*(pruned(each, 5) for each in values), complete(value, after=5)]
        assert Pruning.of(ended, 10, 0.05).among_best == is_wrong

    def test_one_of_four(self) -> None:
        ended = [complete(0.01, after=3), *(complete(0.5, after=4) for _ in range(3)), *[pruned(0.4, 2)] * 14]
        found = Pruning.of(ended, 10, 0.05)
        assert found.text == (
            "pruning stopped 14 trials and saved 112 epochs; 4 more that it would have stopped ran on, which cost 25 "
            "epochs: 1 of these 4 ended among the best tenth (the best 2 of 18 trials; 95 % interval of the share 1 to "
            "81 %)"
        )
        # Clopper and Pearson 1934: P(X >= 1) and P(X <= 1) of four are 2.5 % at the ends.
        low, high = found.interval or (math.nan, math.nan)
        assert 1 - (1 - low) ** 4 == pytest.approx(0.025)
        assert (1 - high) ** 4 + 4 * high * (1 - high) ** 3 == pytest.approx(0.025)

    def test_one_alone_and_one_that_failed(self) -> None:
        lost = Ended(False, None, 7, 3)
        assert "it ended not among the best tenth" in str(Pruning.of([lost, complete(0.1)], 10, 0.05).text)
        assert Pruning.of([lost], 10, 0.05).epochs_cost == 4
        assert "it ended among the best tenth" in str(Pruning.of([complete(0.1, 3)], 10, 0.05).text)


class TestViews:
    @pytest.fixture
    def study(self, sqlite: Backend) -> StoredStudy:
        return trained(sqlite, trials=12, overrides=[*ALL, "pruner.audit=0.4"])

    def test_status_launch_note_and_export_say_the_same(self, study: StoredStudy, sqlite_url: str, cli: Cli) -> None:
        found = pruning_of(study)
        text = str(found.text)
        assert text in cli("status", "tiny", "--storage", sqlite_url).out
        assert text in note_of(study, Places.of(study).counts(), study.optuna.trials)
        assert text in cli("launch", "tiny", "--devices", "cpu", "--storage", sqlite_url).err
        assert json.loads(cli("status", "tiny", "--json", "--storage", sqlite_url).out)["pruning"] == found.to_dict()
        assert json.loads(cli("export", "tiny", "--storage", sqlite_url).out)["pruning"] == found.to_dict()

    def test_the_note_of_an_audited_trial(self, study: StoredStudy) -> None:
        trials = study.optuna.get_trials()
        notes = [trial_note(standing_of(study, trials), trial) for trial in trials]
        said = "The pruner would have stopped it after epoch 2; it ran on as an audit."
        assert [said in note for note in notes] == [is_audited(0, place, 0.4) for place in range(12)]

    def test_where_nothing_is_pruned_nothing_is_said(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        trained(sqlite)
        assert "pruning" not in cli("status", "tiny", "--storage", sqlite_url).out
        assert "pruning" not in json.loads(cli("export", "tiny", "--storage", sqlite_url).out)
