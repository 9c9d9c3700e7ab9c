"""What draws can say of a difference: intervals, verdicts against a baseline, who is tied with the best.

A *draw* is a fresh choice of training images, validation images and seed. Two contestants at the same draw are a pair.
Scores are fractions in [0, 1], greater being better; differences and intervals are in the same unit. Everything here
works on plain numbers. `benchmarks/verdicts.py` measures how often it errs, and docs/verdicts.md explains it.

    n   draws, or pairs of them
    s   standard deviation over the n values, (n − 1) in the divisor
    c   correction for draws that share images, see `correction_for`
    m   rivals of the baseline
    α   1 − level
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special  # faster to load and to call than scipy.stats

from affinity_search.search.training.metrics import METRICS, Counted, Floats, class_groups

Answer = Literal["better", "worse", "no difference shown", "too few draws"]
Scores = Mapping[str, Mapping[int, float]]  # of each contestant, by draw
Confusions = Mapping[int, Sequence[Sequence[int]]]  # a confusion matrix (C, C) of counts for each draw

LEVEL = 0.95
LEAST_DRAWS = 5  # fewer give numbers, but no verdict
LARGEST_OVERLAP = 0.1  # draws that share less of a class's training images count as independent
POWER = 0.8  # how often a difference of the size `smallest` is shown
_ALIKE = 1e-9  # scores are quotients: equal differences may differ in their last digits


@dataclass(frozen=True)
class Interval:
    """A mean over `n` draws, and the interval that covers the true one with probability `level`.

    Unbounded where one value is all there is; without any the mean is NaN.
    """

    mean: float
    low: float
    high: float
    n: int
    level: float = LEVEL

    def includes(self, value: float) -> bool:
        return self.low <= value <= self.high

    def to_dict(self) -> dict[str, float | None]:
        """Ready for JSON: None for what is not known."""
        plain = {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n, "level": self.level}
        return {key: value if math.isfinite(value) else None for key, value in plain.items()}


_NOTHING = Interval(math.nan, -math.inf, math.inf, 0)


@dataclass(frozen=True)
class Verdict:
    """A contestant against the baseline, over the draws that both have. Differences are contestant − baseline."""

    contestant: str
    verdict: Answer
    difference: Interval  # at LEVEL, whatever the number of rivals
    # At the level that Holm's correction leaves for this contestant; it includes 0 where no difference is shown.
    # None without a verdict, and where all differences are equal: then Student's t has no noise to go by.
    corrected: Interval | None
    p: float | None  # two-sided; None without a verdict
    adjusted: float | None  # p after Holm's correction over all rivals
    # A true difference of this size is shown by so many draws in POWER of all comparisons, if the noise is what these
    # draws have, and the other rivals do as they did. None where `corrected` is.
    smallest: float | None
    left_out: tuple[int, ...]  # draws that only one of the two has
    with_test_images: Interval | None = None  # as `bootstrap` gives it

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        intervals = {key: getattr(self, key) for key in ("difference", "corrected", "with_test_images")}
        plain = {key: getattr(self, key) for key in ("contestant", "verdict", "p", "adjusted", "smallest")}
        found = {key: None if one is None else one.to_dict() for key, one in intervals.items()}
        return {**plain, **found, "left_out": list(self.left_out)}


@dataclass(frozen=True)
class Ranked:
    """A contender beside the best one. `mean` is over the draws that all ranked contenders have.

    A contender with fewer than LEAST_DRAWS draws is not ranked: `tied` and `behind` are None, `mean` is over its own.
    """

    contender: str
    mean: float
    behind: Interval | None  # best − this contender, paired
    tied: bool | None  # whether `behind` includes 0; the best is tied with itself


def correction_for(overlap: float, test_ratio: float | None = None) -> float:
    """What is added to 1/n in the variance of a mean over n draws, because they share images.

    `overlap` is the share of its training images that a class has in common with another draw; the largest, over the
    classes that are drawn anew. Up to LARGEST_OVERLAP nothing is added.

    - Draws that score the same test images: overlap / (1 − overlap). Two draws correlate by at most `overlap`
      (Hoeffding 1948, Ann. Math. Statist. 19, section 5, on symmetric functions of samples with members in common),
      and draws with the correlation ρ have a mean of the variance s² · (1/n + ρ / (1 − ρ)).
    - Draws that divide the same images anew into training and test: `test_ratio`, test images over training images.
      That is ρ = n_test / (n_test + n_train) in the same formula, the corrected resampled t of Nadeau and Bengio (2003,
      Machine Learning 52, section 4). They propose this ρ as a guess; it is not a bound.

    With it an interval is about other images from the same source, else about other draws from these images.

    Raises:
        ValueError: the overlap is not in [0, 1), or the ratio is negative.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"an overlap of {overlap:g}; it is a share of at least 0 and less than 1")
    if test_ratio is not None and test_ratio < 0:
        raise ValueError(f"a test_ratio of {test_ratio:g}; it is test images over training images")
    if overlap <= LARGEST_OVERLAP:
        return 0.0
    return overlap / (1 - overlap) if test_ratio is None else test_ratio


def interval(values: Sequence[float] | Floats, level: float = LEVEL, correction: float = 0.0) -> Interval:
    """Student's t over draws: mean ± t · s · √(1/n + c), n − 1 degrees of freedom.

    `correction` is c, as `correction_for` gives it. Values that are all equal give an interval without width: no noise
    is not a proof that there is none.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    found = _finite(values)
    return _around(float(found.mean()), _error(found, correction), len(found), len(found) - 1, level)


def verdicts(
    scores: Scores,
    baseline: str,
    *,
    level: float = LEVEL,
    correction: float = 0.0,
    with_test_images: Mapping[str, Interval] | None = None,
) -> dict[str, Verdict]:
    """Each rival against the baseline, by a paired t test with Holm's correction (1979) over all rivals.

    A rival counts in m even without a verdict: then nobody's verdict changes only because another's draws come in.
    The chance that any of the verdicts "better" and "worse" is false is at most α, if one looks once. Where all
    differences are equal, the sign test decides, p = 2^(1 − n): Student's t would be certain after any two draws.

    Args:
        scores: of each contestant, the baseline among them, by draw. A run that failed has none: its
            draw is left out, which flatters a contestant that often fails.
        correction: as `correction_for` gives it.
        with_test_images: of some rivals, what `bootstrap` gave; passed on.

    Raises:
        ValueError: the baseline is missing, or a score is not finite.
    """
    if baseline not in scores:
        raise ValueError(f"the baseline {baseline!r} has no scores; there are {', '.join(scores)}")
    rivals = {name: by_draw for name, by_draw in scores.items() if name != baseline}
    differences = {name: _differences(by_draw, scores[baseline]) for name, by_draw in rivals.items()}
    enough = {name: found for name, found in differences.items() if len(found) >= LEAST_DRAWS}
    p = {name: _p(found, correction) for name, found in enough.items()}
    adjusted = _holm(p, len(rivals))
    shown = {name for name, value in adjusted.items() if value <= 1 - level}
    found = {}
    for name, by_draw in rivals.items():
        values = differences[name]
        hurdle = (1 - level) / (len(rivals) - len(shown - {name}))  # Holm's for this one, the others being as they are
        varies = name in enough and _varies(values)
        found[name] = Verdict(
            contestant=name,
            verdict=_answer(values, name in shown),
            difference=interval(values, LEVEL, correction) if len(values) else _NOTHING,
            corrected=interval(values, 1 - hurdle, correction) if varies else None,
            p=p.get(name),
            adjusted=adjusted.get(name),
            smallest=_smallest(values, hurdle, correction) if varies else None,
            left_out=tuple(sorted(by_draw.keys() ^ scores[baseline].keys())),
            with_test_images=(with_test_images or {}).get(name),
        )
    return found


def tied_with_best(scores: Scores, *, level: float = LEVEL, correction: float = 0.0) -> list[Ranked]:
    """The contenders by their mean, the best first, and who is tied with it: the interval of the difference includes 0.

    One contender is truly best, and with probability `level` it is among those tied. With more than three contenders
    the intervals are wider than `level` for that, with α / (k − 1) on each side (Bonferroni over the k − 1 others):
    the first by its mean is partly lucky. Ranked are those that have LEAST_DRAWS draws, over the draws that all of
    these have. If these are fewer than LEAST_DRAWS, nobody is ranked.

    Raises:
        ValueError: a score is not finite, or a contender has none.
    """
    means = {name: float(_finite(list(by_draw.values()), name).mean()) for name, by_draw in scores.items()}
    ranked = {name: by_draw for name, by_draw in scores.items() if len(by_draw) >= LEAST_DRAWS}
    common = sorted(set.intersection(*(set(by_draw) for by_draw in ranked.values()))) if ranked else []
    if len(common) < LEAST_DRAWS:
        ranked, common = {}, []
    values = {name: np.array([by_draw[draw] for draw in common]) for name, by_draw in ranked.items()}
    order = sorted(values, key=lambda name: -float(values[name].mean()))
    apart = 1 - min(1 - level, 2 * (1 - level) / max(len(order) - 1, 1))
    found = []
    for name in order:
        behind = interval(values[order[0]] - values[name], apart, correction)
        tied = name == order[0] or behind.includes(0) or behind.mean < _ALIKE
        found.append(Ranked(name, float(values[name].mean()), behind, tied))
    rest = [Ranked(name, mean, None, None) for name, mean in means.items() if name not in ranked]
    return found + sorted(rest, key=lambda one: -one.mean)


def metric_of(key: str, class_sizes: Sequence[int], shares: Sequence[float] | None = None) -> Callable[[Floats], float]:
    """The metric as a function of a confusion matrix (C, C), weighted as `metrics.score` does it.

    `class_sizes` are the training images of each class, `shares` the images of each that the study imagines.

    Raises:
        ValueError: there is no such metric. The function: the matrix alone does not tell it, as with calibration.
    """
    if key not in METRICS:
        raise ValueError(f"there is no metric {key!r}; there are {', '.join(METRICS)}")
    groups = class_groups(class_sizes)

    def compute(confusion: Floats) -> float:
        if shares is not None:
            confusion = confusion * (np.asarray(shares) / np.maximum(confusion.sum(axis=1), 1))[:, None]
        found = METRICS[key](Counted(confusion, np.empty(0, int), groups))
        if found is None:
            raise ValueError(f"a confusion matrix does not tell {key}")
        return found

    return compute


def bootstrap(
    contestant: Confusions,
    baseline: Confusions,
    metric: Callable[[Floats], float],
    *,
    level: float = LEVEL,
    correction: float = 0.0,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """The interval of the paired difference over draws *and* test images, where all draws score the same test images.

    The variance of the mean has two parts. That of the draws is s² · (1/n + c): resampling them would only repeat it,
    and too small by the factor (n − 1) / n. That of the test images is resampled (Efron 1979): in each class as many
    images as it has, with replacement, the same ones for all draws. The interval is mean ± t · √(both), with the
    degrees of freedom of Welch and Satterthwaite (1947).

    A confusion matrix does not say which images were recognised. So this takes the cautious side twice, and the
    interval is rather too wide: all draws recognise the same images, as far as their counts allow, and the two
    contestants recognise images independently of each other. Real ones find the same images hard.

    Args:
        contestant, baseline: counts (C, C) by (true, predicted) class of each draw; used are the draws that both have.
        metric: of a confusion matrix, as `metric_of` makes it.
        seed: of the resampling; the same seed gives the same interval.

    Raises:
        ValueError: no draw is in both, or two matrices do not count the same images of each class.
    """
    draws = sorted(contestant.keys() & baseline.keys())
    if not draws:
        raise ValueError("the two have no draw in common")
    both = np.array([[side[draw] for draw in draws] for side in (contestant, baseline)])  # (2, n, C, C)
    if (both.sum(axis=3) != both[0, 0].sum(axis=1)).any():
        raise ValueError("the draws count different test images; this needs the same in all of them")
    random = np.random.default_rng(seed)
    mine, theirs = (_scored(_resampled(side, resamples, random), metric) for side in both)  # (resamples, n)
    observed = _scored(both, metric)  # (2, n)
    differences = observed[0] - observed[1]
    of_draws, of_images = _error(differences, correction) ** 2, float((mine - theirs).mean(axis=1).var(ddof=1))
    total = of_draws + of_images
    freedom = (len(draws) - 1) * (total / of_draws) ** 2 if of_draws > 0 else math.inf
    return _around(float(differences.mean()), math.sqrt(total), len(draws), freedom, level)


def _resampled(confusions: Floats, resamples: int, random: np.random.Generator) -> Floats:
    """Confusion matrices (n, C, C) of the same images, on resampled images: (resamples, n, C, C).

    The images of a class stand in one order for all draws: first those that are recognised, then the mistakes by class.
    A resampling says how often each place of the order is drawn. Places that no draw tells apart are counted together.
    """
    n, C, _ = confusions.shape
    found = np.zeros((resamples, n, C, C))
    for label in range(C):
        order = [label, *(other for other in range(C) if other != label)]
        ends = confusions[:, label, order].cumsum(axis=1)  # (n, C): where the images of each prediction end
        cuts = np.unique(ends)
        images = int(cuts[-1])
        if images == 0:
            continue
        drawn = random.multinomial(images, np.diff(cuts, prepend=0) / images, size=resamples).cumsum(axis=1)
        found[:, :, label, order] = np.diff(drawn[:, np.searchsorted(cuts, ends)], prepend=0, axis=2)
    return found


def _scored(confusions: Floats, metric: Callable[[Floats], float]) -> Floats:
    """The metric of each matrix of (…, C, C): (…)."""
    *shape, C, _ = confusions.shape
    return np.array([metric(each) for each in confusions.reshape(-1, C, C).astype(float)]).reshape(shape)


def _finite(values: Sequence[float] | Floats, what: str = "the values") -> Floats:
    found = np.asarray(values, float)
    if len(found) == 0 or not np.isfinite(found).all():
        raise ValueError(f"{what}: {found.tolist()}; there must be one at least, and all of them finite")
    return found


def _varies(values: Floats) -> bool:
    return len(values) > 1 and float(np.ptp(values)) > _ALIKE


def _error(values: Floats, correction: float) -> float:
    """Standard error of the mean of draws that may share images: s · √(1/n + c). Infinite for one value."""
    if len(values) == 1:
        return math.inf
    return float(values.std(ddof=1)) * math.sqrt(1 / len(values) + correction) if _varies(values) else 0.0


def _around(mean: float, error: float, n: int, freedom: float, level: float) -> Interval:
    if not math.isfinite(error):
        return Interval(mean, -math.inf, math.inf, n, level)
    half = _quantile((1 + level) / 2, freedom) * error
    return Interval(mean, mean - half, mean + half, n, level)


def _quantile(share: float, freedom: float) -> float:
    """Of Student's t; of the normal distribution for infinitely many degrees of freedom."""
    return float(special.stdtrit(freedom, share) if math.isfinite(freedom) else special.ndtri(share))


def _differences(contestant: Mapping[int, float], baseline: Mapping[int, float]) -> Floats:
    """Contestant − baseline at the draws that both have, in their order."""
    draws = sorted(contestant.keys() & baseline.keys())
    found = np.array([contestant[draw] - baseline[draw] for draw in draws])
    return _finite(found, "the differences to the baseline") if draws else found


def _p(differences: Floats, correction: float) -> float:
    """Two-sided p of the paired t test, corrected for shared images; of the sign test where all are equal."""
    n, mean = len(differences), float(differences.mean())
    if not _varies(differences):
        return 2.0 ** (1 - n) if abs(mean) > _ALIKE else 1.0
    return float(2 * special.stdtr(n - 1, -abs(mean) / _error(differences, correction)))


def _holm(p: Mapping[str, float], rivals: int) -> dict[str, float]:
    """Holm 1979, Scand. J. Statist. 6: p times the rivals that are left, never less than that of a smaller p."""
    adjusted, least = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        least = max(least, min(1.0, (rivals - rank) * p[name]))
        adjusted[name] = least
    return adjusted


def _answer(differences: Floats, shown: bool) -> Answer:
    if shown:
        return "better" if differences.mean() > 0 else "worse"
    if len(differences) < LEAST_DRAWS:
        return "too few draws"
    # The sign test of so few draws cannot show anything.
    constant = not _varies(differences) and abs(float(differences.mean())) > _ALIKE
    return "too few draws" if constant else "no difference shown"


def _smallest(differences: Floats, alpha: float, correction: float) -> float:
    """The true difference that a two-sided t test at `alpha` shows with probability POWER, at the noise of these draws.

    Without the other side's chance, which is below 0.0001 there. `nctdtrinc` solves for the noncentrality.
    """
    freedom = len(differences) - 1
    hurdle = _quantile(1 - alpha / 2, freedom)
    return float(special.nctdtrinc(freedom, 1 - POWER, hurdle)) * _error(differences, correction)
