"""The chaos suite's own arithmetic."""

from pathlib import Path
from typing import Any

import pytest
from chaos_audit import audit_comparison, differences, told_by, trained_epochs, wrong_plan
from optuna.trial import FrozenTrial, create_trial
from sqlalchemy import update

from affinity_search.search.worker.setup import WorkerOptions, work
from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.stored.comparisons import StoredComparison, create_or_continue_comparison
from affinity_search.studies.comparisons import load_comparison


def attempt(number: int, reported: int, resumed: int | None = None, place: int = 0) -> FrozenTrial:
    attrs: dict[str, Any] = {"made_by": {"place": place}}
    if resumed is not None:
        attrs["resumed_epochs"] = resumed
    trial = create_trial(value=1.0, user_attrs=attrs, intermediate_values=dict.fromkeys(range(reported), 0.5))
    trial.number = number
    return trial


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([attempt(0, 30)], 30),
        ([attempt(0, 12), attempt(1, 30)], 42),  # afresh: twelve of them twice
        ([attempt(0, 12), attempt(1, 30, 10)], 32),  # from an older checkpoint: two of them twice
        ([attempt(0, 12), attempt(1, 30, 13)], 30),  # one was trained and not reported
        ([attempt(0, 12), attempt(1, 0), attempt(2, 30, 12)], 30),  # one was killed before it told of anything
        ([attempt(0, 12), attempt(1, 30, 12), attempt(2, 30, place=1)], 60),
    ],
)
def test_epochs_that_were_trained(attempts: list[FrozenTrial], expected: int) -> None:
    assert trained_epochs(attempts) == expected


class TestPlans:
    def test_each_draw_once_of_one_trial(self) -> None:
        assert wrong_plan("s", ["s.final"], [(4, draw) for draw in (2, 1, 3)], 3) == []

    @pytest.mark.parametrize(
        ("studies", "planned", "told"),
        [
            (["s.final", "s.final2"], [(4, 1), (4, 2)], "s has 2 studies of final runs: s.final, s.final2"),
            ([], [], "s has 0 studies of final runs"),
            (["s.final"], [(4, 1), (4, 2), (4, 2)], "s has final runs on draws [1, 2, 2], not on 1 to 2"),
            (["s.final"], [(4, 1)], "s has final runs on draws [1], not on 1 to 2"),
            (["s.final"], [(4, 1), (5, 2)], "s has final runs of trials [4, 5]"),
        ],
    )
    def test_what_is_wrong(self, studies: list[str], planned: list[tuple[int, int]], told: str) -> None:
        assert any(line.startswith(told) for line in wrong_plan("s", studies, planned, 2))


def test_differences_to_the_last_bit() -> None:
    score = 0.1 + 0.2
    assert differences({"a": score}, {"a": score}) == {}
    assert differences({"a": score}, {"a": 0.3}) == {"a": f"a is 0.3, undisturbed it is {score}"}
    assert list(differences({"a": score}, {"b": 1.0})) == ["a", "b"], "what is missing and what is too much"


DUO = """
study = "digits"
trials = 2
draws = 2
[set]
sampler.kind = "random"
pruner.kind = "none"
training.precision = "float32"
[contestants.softmax]
[contestants.focal]
"""


@pytest.mark.usefixtures("fake_training")
class TestComparisons:
    @pytest.fixture
    def comparison(self, sqlite: Backend, tmp_path: Path) -> StoredComparison:
        file = tmp_path / "duo.toml"
        file.write_text(DUO)
        comparison, _ = create_or_continue_comparison(sqlite, load_comparison(str(file), {}))
        assert work(comparison, WorkerOptions("cpu", 1, worker_id="me")) == 2 * 2 + 2 * 2
        return comparison

    def test_a_whole_one(self, comparison: StoredComparison) -> None:
        found = audit_comparison(comparison, told_by(comparison))
        assert (found.places, found.attempts, found.resumed, found.twice, found.wrong) == (8, 8, 0, 0, ())
        assert found.equal == found.compared

    def test_other_scores_in_one_final_run(self, comparison: StoredComparison) -> None:
        told = told_by(comparison)
        told["focal: draw 2"] = "other scores"
        found = audit_comparison(comparison, told)
        assert found.equal == found.compared - 1
        assert [line.partition(" is ")[0] for line in found.wrong] == ["focal: draw 2"]

    def test_a_trial_that_runs_and_a_place_that_is_not_used(self, comparison: StoredComparison) -> None:
        told = told_by(comparison)
        search = comparison.parts()[0].search
        search.optuna.ask()
        places = tables.places
        free = update(places).where(places.c.token == search.token, places.c.number == 1).values(state=PlaceState.FREE)
        comparison.backend.transaction(lambda connection: connection.execute(free))
        wrong = audit_comparison(comparison, told).wrong
        assert any("is RUNNING" in line for line in wrong)
        assert any(line.startswith(f"{search.name}: place 1 is free") for line in wrong)
