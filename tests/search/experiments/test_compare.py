"""Comparisons: searches first, then final runs of what they found, on any workers; verdicts over paired draws."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import fake_objective
import jsonschema
import pytest
from conftest import Cli, Start
from making import holder, worker_for
from optuna.trial import TrialState
from waiting import until

from affinity_search.search.experiments.compare import results
from affinity_search.search.experiments.document import ComparisonModel, make_schema, schema_text
from affinity_search.search.worker.exits import Exit
from affinity_search.search.worker.setup import WorkerOptions, work
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.errors import ComparisonNotFoundError, StudyMismatchError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.stored.comparisons import (
    StoredComparison,
    create_or_continue_comparison,
    find_comparison,
    load_comparison,
)
from affinity_search.storage.study import study_names
from affinity_search.storage.trials.seeds import draw_seed, trial_seed
from affinity_search.studies.comparisons import load_comparison as read

FILE = """
study = "digits"
trials = 3
draws = 5
[set]
training.epochs = 2
network.widths = [4]
sampler.kind = "random"
pruner.kind = "none"
training.precision = "float32"
[contestants.softmax]
[contestants.affinity]
[contestants.focal]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trio.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def comparison(backend: Backend, file: Path) -> StoredComparison:
    return create_or_continue_comparison(backend, read(str(file), {"name": "trio"}))[0]


def finish(comparison: StoredComparison, most: int = 1000) -> int:
    """Use up places here as workers do, `most` of them; returns how many it were."""
    ended = 0
    while ended < most:
        comparison.advance()
        study = comparison.next()
        if study is None:
            return ended
        worker = worker_for(study.refreshed())
        while ended < most and (claim := worker.places.claim(worker.holder)):
            ended += worker.run(claim, lambda: False)
    return ended


@pytest.mark.usefixtures("fake_training")
class TestTheWay:
    def test_searches_first_then_final_runs(self, comparison: StoredComparison) -> None:
        assert [study.name for study in comparison.studies] == ["trio.softmax", "trio.affinity", "trio.focal"]
        assert finish(comparison) == 3 * 3 + 3 * 5
        names = [study.name for study in comparison.studies]
        assert names[3:] == ["trio.softmax.final", "trio.affinity.final", "trio.focal.final"]
        assert not comparison.is_unfinished
        assert not comparison.advance()
        for part in comparison.parts():
            assert part.final is not None
            best = part.search.optuna.best_trial
            for place in Places.of(part.final).rows():
                assert (place.source, place.params, place.state) == (best.number, best.params, PlaceState.COMPLETE)

    def test_no_final_run_before_its_search_has_ended(self, comparison: StoredComparison) -> None:
        finish(comparison, most=4)
        assert comparison.advance(), "searches are left"
        planned = [part.entry.contestant for part in comparison.parts() if part.final]
        assert planned == ["softmax"]
        following = comparison.next()
        assert following is not None
        assert following.name == "trio.affinity", "searches go before final runs"

    def test_all_contestants_are_judged_on_the_same_draws(self, comparison: StoredComparison) -> None:
        finish(comparison)
        (level,) = results(comparison).levels
        for one in level.contestants:
            assert [(run.draw, run.seed) for run in one.runs] == [(draw, draw_seed(0, draw)) for draw in range(1, 6)]

    def test_planned_by_many_at_once_they_are_planned_once(self, comparison: StoredComparison) -> None:
        finish(comparison, most=9)
        others = [load_comparison(comparison.backend, "trio") for _ in range(3)]
        for other in others:
            other.advance()
        for part in comparison.parts():
            assert part.final is not None
            assert Places.of(part.final).counts().total == 5

    @pytest.mark.parametrize("draws", [1, 5])
    def test_whoever_plans_may_die_before_the_places(
        self, backend: Backend, file: Path, draws: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        comparison, _ = create_or_continue_comparison(backend, read(str(file), {"name": "trio", "draws": draws}))
        finish(comparison, most=9)

        def die(*_: Any) -> None:
            raise SystemExit

        with monkeypatch.context() as patched:
            patched.setattr("affinity_search.storage.stored.planning._add", die)
            with pytest.raises(SystemExit):
                comparison.advance()
        again = comparison.refreshed()
        assert again.is_unfinished
        assert finish(again) == 3 * draws
        assert not again.is_unfinished

    def test_one_worker_goes_through_all_of_it(self, comparison: StoredComparison) -> None:
        assert work(comparison, WorkerOptions("cpu", 1, worker_id="me")) == 24
        assert results(comparison.refreshed()).finished
        assert work(comparison, WorkerOptions("cpu", 1, worker_id="me")) == 0

    def test_a_worker_waits_for_the_last_search_of_others(
        self, sqlite: Backend, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        comparison, _ = create_or_continue_comparison(sqlite, read(str(file), {"name": "trio"}))
        finish(comparison, most=8)
        other = worker_for(comparison.parts()[-1].search.settle_precision("float32"))
        claim = other.places.claim(holder("other"))
        assert claim is not None
        paused: list[float] = []

        def pause(seconds: float) -> None:
            paused.append(seconds)
            if len(paused) == 20:  # by then the final runs of the others are done
                other.run(claim, lambda: False)

        monkeypatch.setattr("affinity_search.search.worker.setup.time.sleep", pause)
        assert work(comparison, WorkerOptions("cpu", 1, worker_id="me")) == 15
        assert len(paused) >= 20

    def test_a_contestant_that_fails_does_not_end_the_others(
        self, comparison: StoredComparison, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = fake_objective.FakeTrainer.epochs

        def epochs(self: Any, params: dict[str, float | int], seed: int, **options: Any) -> Any:
            if "gamma" in params:
                raise fake_objective.DivergedError(0, float("nan"))
            return real(self, params, seed, **options)

        monkeypatch.setattr("fake_objective.FakeTrainer.epochs", epochs)
        assert work(comparison, WorkerOptions("cpu", 1, worker_id="me")) == 9 + 10
        found = results(comparison.refreshed())
        assert found.finished
        (level,) = found.levels
        failed = level.contestants[-1]
        assert (failed.contestant, failed.search.failed, failed.runs, failed.params) == ("focal", 3, [], None)
        assert "diverged" in "".join(failed.search.reasons) or failed.search.reasons
        assert "focal: every trial of the search failed" in level.verdict
        assert "affinity" in level.verdict


@pytest.mark.usefixtures("fake_training")
class TestGoingOn:
    def test_the_same_definition_goes_on(self, comparison: StoredComparison, file: Path) -> None:
        again, notes = create_or_continue_comparison(comparison.backend, read(str(file), {"name": "trio"}))
        assert (again.token, notes) == (comparison.token, [])
        assert len(study_names(comparison.backend)) == 3

    def test_a_half_made_one_is_completed(self, comparison: StoredComparison, file: Path) -> None:
        from affinity_search.storage.stored.deletion import delete_study

        delete_study(comparison.backend, "trio.focal", Path("/nonexistent"))
        create_or_continue_comparison(comparison.backend, read(str(file), {"name": "trio"}))
        assert len(load_comparison(comparison.backend, "trio").parts()) == 3

    def test_more_draws_judge_the_same_settings(self, comparison: StoredComparison, file: Path) -> None:
        finish(comparison)
        more, notes = create_or_continue_comparison(comparison.backend, read(str(file), {"name": "trio", "draws": 7}))
        assert notes == ["draws raised from 5 to 7"]
        assert more.is_unfinished or more.advance() or more.next() is not None
        assert finish(more) == 3 * 2
        assert all(len(one.runs) == 7 for one in results(more.refreshed()).levels[0].contestants)

    @pytest.mark.parametrize(
        ("change", "line"),
        [
            ({"trials": 4}, "another trials"),
            ({"metric": "accuracy"}, "metric: stored macro_f1, given accuracy"),
            ({"baseline": "focal"}, "baseline: stored softmax, given focal"),
        ],
    )
    def test_another_definition_is_refused(
        self, comparison: StoredComparison, file: Path, change: dict[str, Any], line: str
    ) -> None:
        with pytest.raises(StudyMismatchError, match=line):
            create_or_continue_comparison(comparison.backend, read(str(file), {"name": "trio"} | change))

    def test_an_unknown_name_lists_the_stored_ones(self, comparison: StoredComparison) -> None:
        with pytest.raises(ComparisonNotFoundError, match="it holds trio"):
            load_comparison(comparison.backend, "duo")
        assert find_comparison(comparison.backend, "duo") is None


@pytest.mark.usefixtures("fake_training")
class TestResults:
    def test_the_document_fits_its_schema_and_says_what_the_scores_say(self, comparison: StoredComparison) -> None:
        finish(comparison)
        found = results(comparison)
        plain = json.loads(found.model_dump_json())
        jsonschema.validate(plain, json.loads(schema_text()))
        assert ComparisonModel.model_validate(plain) == found
        (level,) = found.levels
        by_name = {one.contestant: one for one in level.contestants}
        chosen = {part.entry.contestant: part.search.optuna.best_trial.params for part in comparison.parts()}
        scores = {
            name: [fake_objective.fake_macro_f1(chosen[name], run.seed, epoch=50) for run in one.runs]
            for name, one in by_name.items()
        }
        assert {name: one.params for name, one in by_name.items()} == chosen
        for name, one in by_name.items():
            assert one.means["macro_f1"] == pytest.approx(sum(scores[name]) / 5)
            if name == "softmax":
                assert one.verdict is None
            else:
                expected = [a - b for a, b in zip(scores[name], scores["softmax"], strict=True)]
                assert one.verdict is not None
                assert one.verdict.difference.mean == pytest.approx(sum(expected) / 5)
                assert one.verdict.difference.n == 5

    def test_unfinished_ones_have_numbers_and_no_verdict(self, comparison: StoredComparison) -> None:
        finish(comparison, most=9 + 5)
        found = results(comparison)
        assert not found.finished
        (level,) = found.levels
        assert "no final run has a score yet" in level.verdict
        finish(comparison, most=3)
        (level,) = results(comparison).levels
        verdicts = {one.contestant: one.verdict.verdict for one in level.contestants if one.verdict}
        assert verdicts["affinity"] == "too few draws"

    def test_the_shipped_schema_is_the_models(self) -> None:
        assert schema_text() == make_schema(), "run: make schema"


class TestTheCommand:
    def test_from_a_file_to_a_verdict(
        self, fake_workers: None, sqlite_url: str, file: Path, cli: Cli, tmp_path: Path
    ) -> None:
        at = ("--storage", sqlite_url)
        ran = cli("compare", str(file), "--name", "trio", "--workers", "2", *at)
        assert ran.code == 0
        assert "created comparison 'trio': 3 contestants, 9 places to search, 3 × 5 final runs" in ran.err
        assert "On these images " in ran.out
        again = cli("compare", "trio", "--json", *at)
        assert ComparisonModel.model_validate_json(again.out).finished
        refused = cli("compare", "trio", "--trials", "9", *at, fails=True).refused()
        assert "--trials cannot change it" in refused
        assert "go on with: affinity-search compare trio" in cli("launch", "trio", *at, fails=True).refused()
        assert "'trio' is a comparison; compare, report," in cli("trials", "trio", *at, fails=True).refused()
        assert "holds final runs" in cli("export", "trio.focal.final", *at, fails=True).refused()
        assert json.loads(cli("export", "trio", *at).out)["levels"][0]["export"]["dataset"] == "digits"
        shown = cli("status", *at).out
        assert "trio" in shown
        assert "trio.softmax" not in shown, "one line for a comparison"
        assert "24/24" in shown
        assert "affinity" in cli("status", "trio", *at).out
        assert json.loads(cli("status", "trio", "--json", *at).out)["used"] == 24
        assert "study 'trio.focal.final'" not in cli("doctor", "trio", *at).out
        cli("stop", "trio", *at)
        assert "stopped" in cli("status", *at).out
        cli("delete", "trio", "--yes", *at)
        assert "trio" not in cli("status", *at).out

    @pytest.mark.usefixtures("fake_training")
    def test_a_trial_without_an_end_gets_it_when_nothing_is_left_to_train(
        self, sqlite: Backend, sqlite_url: str, file: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        comparison, _ = create_or_continue_comparison(sqlite, read(str(file), {"name": "trio"}))
        finish(comparison, most=23)
        last = comparison.studies[-1].refreshed()
        worker = worker_for(last)
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        with monkeypatch.context() as patched:  # as one that is killed between the two ends, after its launcher
            patched.setattr("affinity_search.storage.trials.record.TrialRecord.end", lambda *_: None)
            worker.run(claim, lambda: False)
        running = (TrialState.RUNNING,)
        assert len(last.optuna.get_trials(states=running)) == 1
        assert cli("compare", "trio", "--storage", sqlite_url).code == 0
        assert last.optuna.get_trials(states=running) == []

    def test_a_killed_launcher_and_its_workers_lose_nothing(
        self, sqlite: Backend, sqlite_url: str, file: Path, start: Start, tmp_path: Path
    ) -> None:
        gate = tmp_path / "gate"
        options = ("compare", str(file), "--name", "trio", "--workers", "2", "--lease-s", "2", "--storage", sqlite_url)
        first = start(*options, FAKE_GATE=str(gate))

        def held() -> list[Any]:
            found = find_comparison(sqlite, "trio")
            return [place for study in found.studies for place in Places.of(study).held()] if found else []

        until(lambda: len([place for place in held() if place.trial is not None]) == 2, "two trials to begin")
        for pid in (first.process.pid, *(place.pid for place in held())):
            os.kill(pid, signal.SIGKILL)
        first.process.wait()
        gate.touch()
        second = start("compare", "trio", "--workers", "2", "--lease-s", "2", "--storage", sqlite_url)
        assert second.ended() == Exit.DONE, second.said
        found = results(load_comparison(sqlite, "trio"))
        assert found.finished
        for one in found.levels[0].contestants:
            assert one.search.complete == 3
            assert len(one.runs) == 5
        undisturbed = {
            trial_seed(0, place.number): place.value
            for study in load_comparison(sqlite, "trio").studies
            if study.search is None
            for place in Places.of(study).rows()
        }
        assert len(undisturbed) == 3

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (("digits", "--heads", "sofmax,affinity"), "contestants.sofmax.head"),
            (("digits", "--heads", "affinity"), "at least two"),
            (("digits",), "contestants: missing"),
            (("nothing", "--heads", "affinity,softmax"), "study: 'nothing' given"),
            (("digits", "--heads", "affinity,softmax", "--metric", "f2"), "metric: 'f2' given"),
            (("digits", "--heads", "affinity,softmax", "--baseline", "focal"), "baseline: 'focal' given"),
        ],
    )
    def test_mistakes_store_nothing(
        self, arguments: tuple[str, ...], line: str, sqlite_url: str, cli: Cli, tmp_path: Path
    ) -> None:
        ran = cli("compare", *arguments, "--storage", sqlite_url, fails=True)
        assert ran.code == 1
        assert line in ran.err
        assert "Traceback" not in ran.err
        assert not list(tmp_path.glob("studies.db*"))
