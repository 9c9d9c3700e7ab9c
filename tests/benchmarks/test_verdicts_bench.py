"""The simulation behind docs/verdicts.md in small: each test fails if a verdict or an interval loses its correction."""

from math import sqrt

import numpy as np
import pytest
from making import ROOT

from affinity_search.search.experiments.statistics import LEAST_DRAWS
from benchmarks import verdicts
from benchmarks.verdicts import NOISES, POINT

TIMES = 400
PAGE = ROOT / "docs" / "verdicts.md"


def by_luck(share: float, times: int = TIMES) -> float:
    """How far a share may be off in one of 300 tests."""
    return 3 * sqrt(share * (1 - share) / times)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    "effects", [[0.0], [0.0] * 7, [3 * POINT] * 3 + [0.0] * 4], ids=["two", "seven", "three differ"]
)
def test_a_false_verdict_comes_in_one_comparison_of_twenty(random: np.random.Generator, effects: list[float]) -> None:
    found = [verdicts.false_verdict(verdicts.contest(random, 5, effects), effects) for _ in range(TIMES)]
    assert np.mean(found) <= 0.05 + by_luck(0.05)


def test_without_holm_s_correction_it_comes_more_often(random: np.random.Generator) -> None:
    """So the test above can fail."""
    effects = [0.0] * 7
    contests = (verdicts.contest(random, 5, effects) for _ in range(TIMES))
    assert np.mean([verdicts.false_verdict(one, effects, holm=False) for one in contests]) > 0.05 + 2 * by_luck(0.05)


@pytest.mark.parametrize("draws", [5, 10, 20])
def test_intervals_cover_the_truth(random: np.random.Generator, draws: int) -> None:
    found = [verdicts.covers(random, draws, NOISES["normal"]) for _ in range(5 * TIMES)]
    assert np.mean(found) == pytest.approx(0.95, abs=by_luck(0.95, 5 * TIMES))


def test_a_difference_of_the_smallest_size_is_found_in_80_of_100(random: np.random.Generator) -> None:
    found = list(verdicts.power(random, 7, verdicts.smallest(7, 10), POINT, 10, TIMES))
    # A little more often than in the page's definition, where no other rival has a verdict.
    assert 0.8 - by_luck(0.8) < np.mean(found) < 0.8 + by_luck(0.8) + 0.01


def test_draws_that_share_images(random: np.random.Generator) -> None:
    """The plain interval is about other draws from these images; only the corrected one is about others."""
    pool, source, corrected = np.mean([verdicts.sharing(random, 0.5, 0.0) for _ in range(TIMES)], axis=0)
    assert pool == pytest.approx(0.95, abs=by_luck(0.95))
    assert source < 0.8
    assert corrected == pytest.approx(0.95, abs=by_luck(0.95))


def test_draws_that_divide_the_same_images(random: np.random.Generator) -> None:
    plain, corrected = np.mean([verdicts.dividing(random, 0.5, 10) for _ in range(TIMES // 2)], axis=0)
    assert plain < 0.85
    assert corrected > 0.95 - by_luck(0.95, TIMES // 2)


@pytest.mark.long
def test_other_test_images(random: np.random.Generator) -> None:
    pairs = [verdicts.other_images(random, 10, alike=False) for _ in range(60)]
    plain, both = (np.mean([one[i].includes(0) for one in pairs]) for i in (0, 1))
    assert plain < 0.85
    assert both > 0.95 - by_luck(0.95, 60)


def test_the_best_is_among_the_tied(random: np.random.Generator) -> None:
    found = [verdicts.best_is_tied(random, 8, LEAST_DRAWS) for _ in range(TIMES)]
    assert np.mean(found) >= 0.95 - by_luck(0.95)


def test_the_page_has_the_smallest_differences_of_today() -> None:
    """They are computed, not drawn; the page is what a reader plans the draws by."""
    text = PAGE.read_text(encoding="utf-8")
    for rivals in (1, 3, 7):
        row = [str(rivals), *(f"{verdicts.smallest(rivals, draws) / POINT:.2f} points" for draws in (5, 10, 20))]
        assert f"| {' | '.join(row)} |" in text
