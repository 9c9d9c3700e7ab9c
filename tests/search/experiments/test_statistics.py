"""What draws can say of a difference: by hand, against scipy's own tests, and at the edges."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from affinity_search.search.experiments.statistics import (
    LEAST_DRAWS,
    LEVEL,
    POWER,
    Interval,
    Scores,
    bootstrap,
    correction_for,
    interval,
    metric_of,
    tied_with_best,
    verdicts,
)
from affinity_search.search.training.metrics import score

BASELINE = "softmax"


def by_draw(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values, start=1))


def against_half(**differences: list[float]) -> Scores:
    """A baseline that scores 0.5 at every draw, and contestants so much apart from it."""
    longest = max(map(len, differences.values()))
    return {BASELINE: by_draw([0.5] * longest)} | {
        name: by_draw([0.5 + each for each in found]) for name, found in differences.items()
    }


SURE = [0.040, 0.041, 0.039, 0.042, 0.038]
LIKELY = [0.040, 0.010, 0.050, 0.020, 0.030]  # p = 0.013
UNSURE = [0.040, -0.030, 0.010, -0.020, 0.020]


class TestInterval:
    def test_as_scipy_has_it(self) -> None:
        values = [0.91, 0.93, 0.90, 0.95, 0.92]
        theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
        mine = interval(values, 0.9)
        assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high))
        assert (mine.mean, mine.n, mine.level) == (pytest.approx(0.922), 5, 0.9)

    def test_corrected_for_shared_images_by_hand(self) -> None:
        """n = 4, s = 0.2, c = 1/4: the standard error is 0.2 · √(1/4 + 1/4); t(3) at 97.5 % is 3.1824."""
        values = np.array([-1, 1, -1, 1]) * 0.2 * math.sqrt(3) / 2
        assert interval(values, correction=0.25).high == pytest.approx(3.1824 * 0.2 * math.sqrt(0.5), rel=1e-4)

    def test_one_value_tells_nothing_of_the_noise(self) -> None:
        found = interval([0.7])
        assert (found.mean, found.low, found.high) == (0.7, -math.inf, math.inf)
        assert json.loads(json.dumps(found.to_dict())) == {
            "mean": 0.7,
            "low": None,
            "high": None,
            "n": 1,
            "level": LEVEL,
        }

    def test_equal_values_have_no_width(self) -> None:
        assert interval([0.7] * 5) == Interval(pytest.approx(0.7), pytest.approx(0.7), pytest.approx(0.7), 5)

    @pytest.mark.parametrize("values", [[], [0.1, math.nan], [0.1, math.inf]])
    def test_refused(self, values: list[float]) -> None:
        with pytest.raises(ValueError, match="finite"):
            interval(values)


class TestCorrection:
    @pytest.mark.parametrize(
        ("overlap", "ratio", "expected"),
        [(0, None, 0), (0.1, None, 0), (0.1, 0.25, 0), (0.2, None, 0.25), (0.5, None, 1), (0.8, 0.25, 0.25)],
    )
    def test_by_hand(self, overlap: float, ratio: float | None, expected: float) -> None:
        assert correction_for(overlap, ratio) == pytest.approx(expected)

    def test_a_division_s_ratio_is_the_share_of_common_test_images(self) -> None:
        """n_test / n_train is ρ / (1 − ρ) with ρ = n_test / (n_test + n_train)."""
        assert correction_for(0.7, 30 / 70) == pytest.approx(correction_for(0.3))

    @pytest.mark.parametrize("wrong", [(1.0,), (-0.1,), (0.5, -1)])
    def test_refused(self, wrong: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match=r"overlap|ratio"):
            correction_for(*wrong)


class TestVerdicts:
    def test_the_paired_t_test_of_scipy(self) -> None:
        scores = against_half(affinity=UNSURE)
        found = verdicts(scores, BASELINE)["affinity"]
        pair = [list(scores[name].values()) for name in ("affinity", BASELINE)]
        assert found.p == found.adjusted == pytest.approx(stats.ttest_rel(*pair).pvalue)
        assert found.difference == found.corrected

    def test_better_worse_and_no_difference_shown(self) -> None:
        scores = against_half(good=SURE, bad=[-each for each in SURE], same=UNSURE)
        found = verdicts(scores, BASELINE)
        assert [found[name].verdict for name in ("good", "bad", "same")] == ["better", "worse", "no difference shown"]
        assert BASELINE not in found

    def test_only_common_draws_are_pairs(self) -> None:
        scores = {"a": {1: 0.6, 2: 0.7, 4: 0.9}, BASELINE: {2: 0.5, 4: 0.6, 7: 0.1}}
        found = verdicts(scores, BASELINE)["a"]
        assert (found.difference.n, found.difference.mean) == (2, pytest.approx(0.25))
        assert found.left_out == (1, 7)

    @pytest.mark.parametrize("n", range(LEAST_DRAWS))
    def test_fewer_than_five_draws_give_numbers_only(self, n: int) -> None:
        scores = {BASELINE: by_draw([0.5] * 9), "a": by_draw([0.5 + each for each in SURE[:n]])}
        found = verdicts(scores, BASELINE)["a"]
        assert found.verdict == "too few draws"
        assert found.p is found.adjusted is found.corrected is found.smallest is None
        assert found.difference.n == n
        json.dumps(found.to_dict(), allow_nan=False)

    def test_a_rival_counts_even_without_a_verdict(self) -> None:
        """So the verdict on one does not change only because the draws of another come in."""
        alone = verdicts(against_half(likely=LIKELY), BASELINE)["likely"]
        assert alone.verdict == "better"
        crowd = against_half(likely=LIKELY, **{f"slow{i}": SURE[:2] for i in range(4)})
        beside = verdicts(crowd, BASELINE)["likely"]
        assert beside.p == alone.p
        assert beside.adjusted == pytest.approx(5 * beside.p)
        assert beside.verdict == "no difference shown"

    def test_holm_by_hand(self) -> None:
        """Three rivals: the least p counts three times, the next twice, and never less than the one before."""
        found = verdicts(against_half(a=SURE, b=LIKELY, c=UNSURE), BASELINE)
        p = {name: each.p for name, each in found.items()}
        assert found["a"].adjusted == pytest.approx(3 * p["a"])
        assert found["b"].adjusted == pytest.approx(2 * p["b"])
        assert found["c"].adjusted == p["c"]
        assert found["b"].corrected.level == pytest.approx(0.975), "a is shown already: two are left"
        assert found["c"].corrected.level == pytest.approx(0.95), "both others are"

    def test_holm_stops_at_the_first_that_shows_nothing(self) -> None:
        """Two with p = 0.03 each: neither is below 0.05 / 2, though the second alone would be below 0.05."""
        t = stats.t.isf(0.015, 4)
        values = np.array(UNSURE) - np.mean(UNSURE)
        values = (values + t * values.std(ddof=1) / math.sqrt(5)).tolist()
        found = verdicts(against_half(a=values, b=values), BASELINE)
        assert [each.p for each in found.values()] == pytest.approx([0.03, 0.03])
        assert [each.adjusted for each in found.values()] == pytest.approx([0.06, 0.06])
        assert {each.verdict for each in found.values()} == {"no difference shown"}

    @given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.sampled_from([0.0, 0.25]))
    def test_a_verdict_says_what_its_corrected_interval_says(self, seed: int, rivals: int, correction: float) -> None:
        random = np.random.default_rng(seed)
        effects = random.choice([0, 0.01, 0.02, 0.05], rivals)
        differences = {f"r{i}": random.normal(effects[i], 0.01, 6).tolist() for i in range(rivals)}
        for found in verdicts(against_half(**differences), BASELINE, correction=correction).values():
            assert (found.verdict == "no difference shown") == found.corrected.includes(0)
            assert found.verdict == "no difference shown" or (found.verdict == "better") == (found.difference.mean > 0)

    def test_equal_contestants(self) -> None:
        found = verdicts(against_half(same=[0.0] * 5), BASELINE)["same"]
        assert (found.verdict, found.p, found.difference.mean) == ("no difference shown", 1, 0)
        assert found.corrected is found.smallest is None, "no noise was seen, so nothing is known of it"

    @pytest.mark.parametrize(("n", "answer"), [(5, "too few draws"), (6, "better")])
    def test_a_constant_difference_is_judged_by_its_sign(self, n: int, answer: str) -> None:
        """0.7 − 0.6 and 0.8 − 0.7 differ in their last digits: to Student's t that would be proof."""
        baseline = by_draw([0.1 * (i + 1) for i in range(n)])
        scores = {BASELINE: baseline, "a": {draw: value + 0.1 for draw, value in baseline.items()}}
        found = verdicts(scores, BASELINE)["a"]
        assert found.p == 2 ** (1 - n)
        assert found.verdict == answer
        assert found.corrected is found.smallest is None

    def test_shared_images_make_it_harder(self) -> None:
        scores = against_half(a=LIKELY)
        plain, corrected = (verdicts(scores, BASELINE, correction=c)["a"] for c in (0, 0.5))
        assert (plain.verdict, corrected.verdict) == ("better", "no difference shown")
        assert corrected.smallest == pytest.approx(plain.smallest * math.sqrt((0.2 + 0.5) / 0.2))

    @pytest.mark.parametrize("rivals", [1, 7])
    def test_the_smallest_difference_is_shown_in_80_of_100(self, rivals: int) -> None:
        """At known noise; the rivals beside it show nothing."""
        n, sd, times = 8, 0.01, 1500
        random = np.random.default_rng(rivals)
        pattern = np.array([-1, 1] * 4) * sd / math.sqrt(8 / 7)  # its standard deviation is `sd`
        others = {f"r{i}": pattern.tolist() for i in range(rivals - 1)}
        smallest = verdicts(against_half(a=pattern.tolist(), **others), BASELINE)["a"].smallest
        assert smallest is not None
        draws = random.normal(smallest, sd, (times, n)).tolist()
        shown = [verdicts(against_half(a=each, **others), BASELINE)["a"].verdict == "better" for each in draws]
        assert np.mean(shown) == pytest.approx(POWER, abs=3 * math.sqrt(0.16 / times))

    def test_what_the_test_images_say_is_passed_on(self) -> None:
        wide = Interval(0.04, 0.01, 0.07, 5)
        found = verdicts(against_half(a=SURE, b=SURE), BASELINE, with_test_images={"a": wide})
        assert (found["a"].with_test_images, found["b"].with_test_images) == (wide, None)
        plain = json.loads(json.dumps(found["a"].to_dict(), allow_nan=False))
        assert plain["with_test_images"]["low"] == 0.01
        assert plain["verdict"] == "better"

    def test_refused(self) -> None:
        with pytest.raises(ValueError, match="'ldam' has no scores; there are softmax, a"):
            verdicts(against_half(a=SURE), "ldam")
        with pytest.raises(ValueError, match="finite"):
            verdicts(against_half(a=[0.1, math.nan]), BASELINE)


class TestTiedWithBest:
    def test_ranks_and_ties(self) -> None:
        scores = against_half(first=LIKELY, close=UNSURE, last=[-each for each in SURE])
        found = tied_with_best(scores)
        assert [(one.contender, one.tied) for one in found] == [
            ("first", True),
            ("close", True),
            (BASELINE, False),
            ("last", False),
        ]
        assert found[0].mean == pytest.approx(0.53)
        assert found[3].behind.mean == pytest.approx(0.07)

    def test_who_lacks_draws_is_not_ranked(self) -> None:
        """However high its mean is: few draws are often lucky."""
        scores = against_half(good=SURE, lucky=[0.2] * (LEAST_DRAWS - 1))
        found = tied_with_best(scores)
        assert [(one.contender, one.tied) for one in found] == [("good", True), (BASELINE, False), ("lucky", None)]
        assert (found[2].mean, found[2].behind) == (pytest.approx(0.7), None)

    def test_means_are_over_common_draws(self) -> None:
        """An easy draw that only one has does not raise it."""
        scores = {"a": by_draw([0.5, 0.6, 0.5, 0.6, 0.5, 1.0]), "b": by_draw([0.51, 0.61, 0.52, 0.61, 0.52])}
        found = tied_with_best(scores)
        assert [one.contender for one in found] == ["b", "a"]
        assert found[1].mean == pytest.approx(0.54)

    def test_too_few_common_draws_rank_nobody(self) -> None:
        scores = {"a": dict.fromkeys(range(6), 0.5), "b": dict.fromkeys(range(3, 9), 0.6)}
        assert [(one.contender, one.tied) for one in tied_with_best(scores)] == [("b", None), ("a", None)]

    def test_equal_contenders_are_tied(self) -> None:
        assert [one.tied for one in tied_with_best(against_half(a=[0.0] * 5))] == [True, True]

    def test_more_contenders_get_wider_intervals(self) -> None:
        """For three it is the plain 95 %, for eleven 99 %."""
        three = {f"c{i}": by_draw(UNSURE) for i in range(3)}
        eleven = {f"c{i}": by_draw(UNSURE) for i in range(11)}
        assert tied_with_best(three)[1].behind.level == pytest.approx(0.95)
        assert tied_with_best(eleven)[1].behind.level == pytest.approx(0.99)


def counted(recall: float, draws: int = 6, *, images: int = 400, seed: int = 0, spread: float = 0.0) -> dict[int, list]:
    """Confusion matrices of three classes that are recognised alike."""
    random = np.random.default_rng(seed)
    found = {}
    for draw in range(draws):
        right = recall + random.normal(0, spread) if spread else recall
        hits = [round(images * right)] * 3
        found[draw] = [
            [
                hits[c] if c == k else (images - hits[c]) // 2 + (images - hits[c]) % 2 * (k == (c + 1) % 3)
                for k in range(3)
            ]
            for c in range(3)
        ]
    return found


class TestBootstrap:
    balanced = staticmethod(metric_of("balanced_accuracy", (100, 10, 10)))

    def test_without_noise_of_draws_it_is_the_binomial_of_the_test_images(self) -> None:
        """Two recalls of 3 classes with 400 images each: variance Σ r (1 − r) / 1200, known without loss of freedom."""
        found = bootstrap(counted(0.9), counted(0.8), self.balanced, resamples=4000)
        error = math.sqrt((0.9 * 0.1 + 0.8 * 0.2) / 1200)
        assert found.mean == pytest.approx(0.1)
        assert found.high - found.mean == pytest.approx(1.96 * error, rel=0.05)
        assert found.n == 6, "more draws of the same test images do not make them more"

    def test_where_the_mistakes_go_does_not_matter_to_a_recall(self) -> None:
        """Draws that err towards different classes may still recognise the same images: the cautious side."""
        side = {draw: [[360, 40, 0], [40, 320, 40], [0, 40, 360]] for draw in range(5)}
        other = {draw: [[360, 0, 40], [80 * (draw % 2), 320, 80 * (1 - draw % 2)], [40, 0, 360]] for draw in range(5)}
        halves = [bootstrap(one, side, self.balanced, resamples=4000).high for one in (side, other)]
        assert halves[0] == pytest.approx(halves[1], rel=0.05)

    def test_degrees_of_freedom_of_welch_and_satterthwaite(self) -> None:
        """Three draws with as much noise as the test images have: 2 · 2² of them, not 2."""
        shifts = np.array([-8, 0, 8])
        sides = [
            {d: [[hits + shift, 400 - hits - shift]] * 2 for d, shift in enumerate(signs * shifts)}
            for hits, signs in ((320, 1), (320, -1))
        ]
        confusions = [{d: [row[0], row[0][::-1]] for d, row in side.items()} for side in sides]
        metric = metric_of("balanced_accuracy", (1, 1))
        of_images = 2 * 0.8 * 0.2 / 800
        of_draws = (16 / 400) ** 2 / 3
        total = of_draws + of_images
        expected = stats.t.ppf(0.975, 2 * (total / of_draws) ** 2) * math.sqrt(total)
        assert bootstrap(*confusions, metric, resamples=4000).high == pytest.approx(expected, rel=0.05)

    def test_with_many_test_images_it_is_the_interval_over_draws(self) -> None:
        sides = [
            counted(0.9, images=4_000_000, seed=1, spread=0.02),
            counted(0.8, images=4_000_000, seed=2, spread=0.02),
        ]
        scores = [[self.balanced(np.array(each, float)) for each in side.values()] for side in sides]
        plain = interval(np.subtract(*scores))
        found = bootstrap(*sides, self.balanced, resamples=200)
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=2e-4)

    def test_it_is_wider_than_either(self) -> None:
        sides = [counted(0.9, seed=1, spread=0.02), counted(0.8, seed=2, spread=0.02)]
        scores = [[self.balanced(np.array(each, float)) for each in side.values()] for side in sides]
        plain, found = interval(np.subtract(*scores)), bootstrap(*sides, self.balanced)
        assert found.low < plain.low
        assert found.high > plain.high
        wider = bootstrap(*sides, self.balanced, correction=0.5)
        assert wider.low < found.low

    def test_the_same_seed_gives_the_same_interval(self) -> None:
        one, again, other = (bootstrap(counted(0.9), counted(0.8), self.balanced, seed=seed) for seed in (3, 3, 4))
        assert one == again != other

    def test_one_draw_is_unbounded(self) -> None:
        assert bootstrap(counted(0.9, 1), counted(0.8, 1), self.balanced).high == math.inf

    def test_refused(self) -> None:
        with pytest.raises(ValueError, match="different test images"):
            bootstrap(counted(0.9), counted(0.8, images=500), self.balanced)
        with pytest.raises(ValueError, match="in common"):
            bootstrap({1: [[1]]}, {2: [[1]]}, self.balanced)
        with pytest.raises(ValueError, match="calibration"):
            bootstrap(counted(0.9), counted(0.8), metric_of("calibration", (1, 1, 1)))
        with pytest.raises(ValueError, match="no metric 'f1'; there are macro_f1"):
            metric_of("f1", (1, 1, 1))

    def test_a_class_without_test_images(self) -> None:
        empty = {draw: [[5, 1, 0], [0, 0, 0], [1, 1, 6]] for draw in range(5)}
        found = bootstrap(empty, empty, metric_of("macro_f1", (1, 1, 1)))
        assert found.mean == 0
        assert found.low < 0 < found.high


@pytest.mark.parametrize("key", ["macro_f1", "balanced_accuracy", "worst_recall", "recall_few", "accuracy"])
def test_the_metric_of_a_matrix_is_the_metric_of_the_images(key: str) -> None:
    random = np.random.default_rng(0)
    labels, predictions = np.sort(random.integers(0, 4, 300)), random.integers(0, 4, 300)
    sizes, shares = (1000, 500, 20, 10), (100, 100, 5, 5)
    scores = score(labels, predictions, 4, class_sizes=sizes, shares=shares)
    assert metric_of(key, sizes, shares)(np.array(scores.confusion, float)) == pytest.approx(scores[key])
