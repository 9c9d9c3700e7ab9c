"""The replayed search behind the choice of sampler and pruner, on tables small enough to count by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from making import ROOT
from numpy.typing import ArrayLike

from affinity_search.storage.trials.sampling import make_pruner, make_sampler, suggest
from affinity_search.storage.trials.seeds import sampler_seed
from affinity_search.studies import bundled
from affinity_search.studies.files import load
from benchmarks.sampling import replay
from benchmarks.sampling.contenders import ALL, CHOSEN, PRUNERS, SAMPLERS, Contender
from benchmarks.sampling.replay import NEVER, Replay
from benchmarks.sampling.table import TABLES, Table, read, study_of, to_cube

OURS = [name for name in bundled.names() if not name.endswith("-article")]
README = ROOT / "benchmarks" / "README.md"
SPACE = load(str(study_of("mnist"))).space
assert SPACE is not None
PATIENT = Contender("random", "none")
# From the third trial on, after its second epoch: it goes if it has been worse than the median so far.
STRICT = Contender("random", "median, 1 epoch warm-up, from the third trial")

Point = tuple[float, float, int]  # λ, σ, m


def params(point: Point) -> dict[str, float | int]:
    return dict(zip(("lambda", "sigma", "n_centers"), point, strict=True))


def table_of(points: Sequence[Point], curves: ArrayLike | None = None) -> Table:
    assert SPACE is not None
    scores = np.zeros((len(points), 1)) if curves is None else np.array(curves, float)
    return Table(SPACE, np.array([to_cube(SPACE, params(point)) for point in points]), scores)


def in_order(curves: ArrayLike) -> Table:
    """Whoever always proposes the least λ is answered by the first row, the second, …"""
    return table_of([(0.01 + 0.1 * number, 10, 5) for number in range(len(np.array(curves)))], curves)


@pytest.fixture
def always_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "suggest", lambda trial, space: params((0.01, 10, 5)))


class TestNearest:
    def test_sigma_by_its_logarithm(self) -> None:
        table = table_of([(0.5, 10, 5), (0.5, 100, 5)])
        assert table.nearest(params((0.5, 40, 5)), np.array([True, True])) == 1, (
            "40 is 30 from 10, but 2.5 times 40 is 100"
        )

    def test_every_parameter_as_a_share_of_its_range(self) -> None:
        table = table_of([(0.9, 10, 13), (0.5, 10, 10)])
        assert table.nearest(params((0.5, 10, 13)), np.array([True, True])) == 1, (
            "3 centres of 29 against 0.4 of λ's 0.99"
        )

    def test_among_the_unused_ones(self) -> None:
        table = table_of([(0.5, 10, 5), (0.6, 10, 5), (0.9, 10, 5)])
        assert table.nearest(params((0.5, 10, 5)), np.array([False, True, True])) == 1


class TestBestRows:
    @pytest.mark.parametrize(("rows", "best"), [(1, 1), (20, 1), (40, 2), (160, 8)])
    def test_a_twentieth_but_at_least_one(self, rows: int, best: int) -> None:
        table = in_order([[number / rows] for number in range(rows)])
        assert table.best_rows == set(range(rows - best, rows))

    def test_by_their_best_epoch(self) -> None:
        assert in_order([[0.5, 0.5, 0.6], [0.1, 0.9, 0.2]]).best_rows == {1}


@pytest.mark.usefixtures("always_the_least")
class TestEpochsUntilSuccess:
    def test_every_proposal_uses_up_a_row(self) -> None:
        poor, best = [0.1, 0.2], [0.8, 0.9]
        assert Replay(in_order([poor, poor, best, poor]), PATIENT, seed=0).epochs_to_success() == 6

    def test_epochs_of_a_pruned_trial_count(self) -> None:
        table = in_order([[0.5] * 3, [0.5] * 3, [0.1] * 3, [0.7, 0.8, 0.9]])
        assert Replay(table, PATIENT, seed=0).epochs_to_success() == 3 + 3 + 3 + 3
        assert Replay(table, STRICT, seed=0).epochs_to_success() == 3 + 3 + 2 + 3

    def test_never_when_the_best_row_was_pruned_and_the_others_are_used_up(self) -> None:
        table = in_order([[0.5] * 3, [0.5] * 3, [0.1, 0.1, 0.9], [0.5] * 3])
        assert Replay(table, PATIENT, seed=0).epochs_to_success() == 9
        assert Replay(table, STRICT, seed=0).epochs_to_success() == NEVER

    def test_a_pruned_trial_counts_with_the_best_it_reached(self) -> None:
        table = in_order([[0.7, 0.7, 0.75], [0.7, 0.7, 0.75], [0.1, 0.1, 0.1], [0.8, 0.1, 0.9]])
        assert Replay(table, STRICT, seed=0).epochs_to_success() == 3 + 3 + 2 + 3
        worse_later = in_order([[0.7, 0.7, 0.75], [0.7, 0.7, 0.75], [0.6, 0.1, 0.9]])
        assert Replay(worse_later, STRICT, seed=0).epochs_to_success() == NEVER

    def test_noise_moves_the_scores_and_not_what_is_wanted(self) -> None:
        """The only best row is told as worse than the other one by some seeds."""
        table = in_order([[0.50], [0.51]])
        ends = {Replay(table, PATIENT, seed=seed, noise=0.1).epochs_to_success() for seed in range(20)}
        assert ends == {2, NEVER}

    def test_workers_take_turns_by_the_epoch(self) -> None:
        """The second one's success is seen once the first has begun a third trial: 3 epochs, 3, and 1."""
        table = in_order([[0.1] * 3, [0.9] * 3, [0.1] * 3])
        assert Replay(table, PATIENT, seed=0, workers=2).epochs_to_success() == 7


def test_optuna_hears_the_score_of_the_row_that_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    monkeypatch.setattr(optuna.Study, "tell", lambda self, trial, value=None, **more: told.append(value))
    Replay(in_order([[0.25, 0.75]]), PATIENT, seed=0).epochs_to_success()
    assert told == [0.25], "1 − the best epoch's macro F1"


@pytest.mark.parametrize(("name", "rows", "best"), [("mnist", 120, 6), ("cifar10", 120, 6)])
def test_the_recorded_tables_are_what_the_figures_say(name: str, rows: int, best: int) -> None:
    assert name in TABLES
    table = read(name)
    assert (len(table), table.epochs, len(table.best_rows)) == (rows, 10, best)
    assert ((table.points >= 0) & (table.points <= 1)).all()
    assert abs(np.median(table.points[:, :2], axis=0) - 0.5).max() < 0.15, "drawn evenly over the logarithms"


@pytest.mark.parametrize("name", TABLES)
def test_a_row_is_the_place_of_its_number(name: str) -> None:
    """So a table grows by the study's later places, each a point of its own."""
    table, spec = read(name), load(str(study_of(name)))
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        for place, point in enumerate(table.points):
            study = optuna.create_study(sampler=make_sampler(spec.sampler, sampler_seed(spec.seed, place)))
            assert point == pytest.approx(to_cube(table.space, suggest(study.ask(), spec.space)), abs=1e-4), place
    finally:
        optuna.logging.set_verbosity(level)


class TestTheWinner:
    def test_is_one_of_those_compared(self) -> None:
        assert Contender(*CHOSEN) in ALL

    def test_is_judged_on_the_table_that_it_was_not_chosen_on(self) -> None:
        """README's two tables of pairs: the one of the choice, and another set's."""
        chosen, judged = README.read_text(encoding="utf-8").split("| mean rank |\n")[1:3]
        row = f"| {CHOSEN[0]} | {CHOSEN[1]} |"
        assert row in chosen.partition("\n\n")[0]
        assert row in judged.partition("\n\n")[0]

    def test_on_cifar10_nothing_beat_random_search_and_the_bundled_study_keeps_that(self) -> None:
        spec = load("cifar10")
        assert (written(spec.sampler), written(spec.pruner)) == ({"kind": "random"}, {"kind": "none"})

    @pytest.mark.parametrize("name", [name for name in OURS if name != "cifar10"])
    def test_is_what_the_bundled_studies_take(self, name: str) -> None:
        spec, sampler, pruner = load(name), SAMPLERS[CHOSEN[0]], PRUNERS[CHOSEN[1]]
        assert written(spec.sampler) == sampler
        share = pruner["min_resource"] / load(str(study_of("mnist"))).training.epochs
        assert written(spec.pruner) == pruner | {"min_resource": round(share * spec.training.epochs)}

    @pytest.mark.parametrize(("name", "steps"), [("table", [2, 6]), ("mnist", [4, 12]), ("digits", [3, 9])])
    def test_decides_at_the_steps_that_the_readme_names(self, name: str, steps: list[int]) -> None:
        if name == "table":
            assert decides(Contender(*CHOSEN).pruner_spec, load(str(study_of("mnist"))).training.epochs) == steps
        else:
            spec = load(name)
            assert decides(spec.pruner, spec.training.epochs) == steps


def written(section: Any) -> dict[str, Any]:
    """As a study file has it."""
    return {"kind": section.kind, **section.options}


def decides(pruner: Any, epochs: int) -> list[int]:
    """The steps, counted from 0, at which Optuna's pruner passes a trial on to the next rung."""
    study = optuna.create_study(pruner=make_pruner(pruner, epochs))
    trial, rungs = study.ask(), [0]
    for step in range(epochs):
        trial.report(0.5, step)
        trial.should_prune()
        rungs.append(sum(key.startswith("completed_rung") for key in study.trials[0].system_attrs))
    return [step for step in range(epochs) if rungs[step + 1] > rungs[step]]
