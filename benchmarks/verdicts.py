"""How often are the verdicts of a comparison wrong, what do they find, and do the intervals cover the truth?

    python -m benchmarks.verdicts   # two and a half minutes on one core

Simulated: contestants whose true scores are known, compared by `search/experiments/statistics.py` itself. A score is
the true score of its contestant, plus the luck of the draw (2 points, the same for all contestants at that draw), plus
luck of its own. `sd` is the standard deviation of the difference of two contestants at a draw, in points. In the
measured comparison of heads (docs/scores.md) it is 0.4 to 2.3.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.experiments.statistics import (
    Interval,
    Scores,
    bootstrap,
    correction_for,
    interval,
    metric_of,
    tied_with_best,
    verdicts,
)
from benchmarks.commands import machine

Floats = NDArray[np.float64]
Random = np.random.Generator
Noise = Callable[[Random, tuple[int, ...]], Floats]

POINT = 0.01
TIMES = 2000
BASELINE = "baseline"
NOISES: dict[str, Noise] = {  # mean 0, standard deviation 1
    "normal": lambda random, shape: random.normal(size=shape),
    "heavy tails (t with 3 degrees of freedom)": lambda random, shape: random.standard_t(3, shape) / math.sqrt(3),
    "difference of two exponential": lambda random, shape: (
        (random.exponential(size=shape) - random.exponential(size=shape)) / math.sqrt(2)
    ),
    "skewed (gamma, skewness 1)": lambda random, shape: (random.gamma(4, size=shape) - 4) / 2,
    "very skewed (exponential, skewness 2)": lambda random, shape: random.exponential(size=shape) - 1,
}


def main() -> None:
    began = time.monotonic()
    for heading, columns, rows in (
        ("False verdicts", ("case", "draws", "comparisons with a false verdict"), _false()),
        ("Coverage of the 95 % interval", ("noise of the difference", *_DRAWS), _coverage()),
        ("Power", ("rivals", "true difference", "sd", *_DRAWS), _power()),
        ("Smallest difference that is shown in 80 %, sd 1 point", ("rivals", *_DRAWS), _smallest()),
        ("Draws of rare classes from one pool, same test images", _SHARING, _sharing()),
        ("Draws that divide the same images anew", ("test images", "draws", "plain", "corrected"), _dividing()),
        ("Other test images", _OTHER, _tests()),
        ("Tied with the best", ("contenders", "draws", "the truly best is among the tied"), _tied()),
    ):
        print(f"\n**{heading}**\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
        for row in rows:
            print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{machine()}; {time.monotonic() - began:.0f} s")


_DRAWS = ("5 draws", "10 draws", "20 draws")
_OTHER = ("hard images", "draws", "over draws", "half its width", "draws and test images", "half its width")
_SHARING = ("images in common", "noise", "these images: plain", "other images: plain", "other images: corrected")


def share(of: Iterable[bool]) -> tuple[float, float]:
    """The share that is true, and how far it may be off by luck: 1.96 binomial standard errors."""
    found = np.array(list(of), float)
    mean = float(found.mean())
    return mean, 1.96 * math.sqrt(mean * (1 - mean) / len(found))


def _text(of: Iterable[bool]) -> str:
    mean, margin = share(of)
    return f"{100 * mean:.1f} ± {100 * margin:.1f} %"


def contest(random: Random, draws: int, effects: Sequence[float], sd: float = POINT) -> Scores:
    """Scores of a baseline and of a rival for each effect, which is its true difference to the baseline."""
    luck = random.normal(0.5, 2 * POINT, draws)
    own = random.normal(0, sd / math.sqrt(2), (len(effects) + 1, draws))
    values = own + luck + np.array([0, *effects])[:, None]
    names = [BASELINE, *(f"rival {i}" for i in range(1, len(effects) + 1))]
    return {name: dict(enumerate(row)) for name, row in zip(names, values.tolist(), strict=True)}


def false_verdict(scores: Scores, effects: Sequence[float], holm: bool = True) -> bool:
    """Whether any rival without a true difference is called better or worse."""
    found = list(verdicts(scores, BASELINE).values())
    equal = [one for one, effect in zip(found, effects, strict=True) if effect == 0]
    if holm:
        return any(one.verdict in ("better", "worse") for one in equal)
    return any(not one.difference.includes(0) for one in equal)


def impatient(scores: Scores) -> bool:
    """Whether somebody who looks after each draw, from the fifth on, is ever told of a difference."""
    longest = len(scores[BASELINE])
    looks = ({name: dict(list(one.items())[:n]) for name, one in scores.items()} for n in range(5, longest + 1))
    return any(verdicts(look, BASELINE)["rival 1"].verdict in ("better", "worse") for look in looks)


def _false() -> Iterable[tuple[str, ...]]:
    random = np.random.default_rng(1)
    for case, effects in (
        ("two equal contestants", [0.0]),
        ("seven rivals, all equal to the baseline", [0.0] * 7),
        ("seven rivals, three truly better by 3 points", [3 * POINT] * 3 + [0.0] * 4),
    ):
        for draws in (5, 10, 20):
            found = (false_verdict(contest(random, draws, effects), effects) for _ in range(TIMES))
            yield case, str(draws), _text(found)
    effects = [0.0] * 7
    found = (false_verdict(contest(random, 10, effects), effects, holm=False) for _ in range(TIMES))
    yield "seven equal rivals, each judged by its own 95 % interval", "10", _text(found)
    found = (impatient(contest(random, 20, [0.0])) for _ in range(TIMES // 4))
    yield "two equal contestants, looked at after each draw", "5 to 20", _text(found)


def covers(random: Random, draws: int, noise: Noise) -> bool:
    return interval(POINT * noise(random, (draws,))).includes(0)


def _coverage() -> Iterable[tuple[str, ...]]:
    random = np.random.default_rng(2)
    for name, noise in NOISES.items():
        yield name, *(_text(covers(random, draws, noise) for _ in range(5 * TIMES)) for draws in (5, 10, 20))


def power(random: Random, rivals: int, effect: float, sd: float, draws: int, times: int) -> Iterable[bool]:
    """Whether the one rival that is better by `effect` is called better; the others are equal to the baseline."""
    effects = [effect] + [0.0] * (rivals - 1)
    return (
        verdicts(contest(random, draws, effects, sd), BASELINE)["rival 1"].verdict == "better" for _ in range(times)
    )


def _power() -> Iterable[tuple[str, ...]]:
    random = np.random.default_rng(3)
    for rivals in (1, 7):
        for effect in (1, 2):
            for sd in (0.5, 1, 2):
                found = (_text(power(random, rivals, effect * POINT, sd * POINT, n, TIMES // 4)) for n in (5, 10, 20))
                yield str(rivals), f"{effect} point{'s' * (effect > 1)}", f"{sd:g}", *found


def smallest(rivals: int, draws: int) -> float:
    """`Verdict.smallest` at a known standard deviation of 1 point, where no rival shows a difference."""
    pattern = np.linspace(-1, 1, draws)
    pattern *= POINT / pattern.std(ddof=1)
    names = [f"rival {i}" for i in range(1, rivals + 1)]
    scores = {BASELINE: dict.fromkeys(range(draws), 0.0)} | {name: dict(enumerate(pattern)) for name in names}
    return verdicts(scores, BASELINE)["rival 1"].smallest or 0.0


def _smallest() -> Iterable[tuple[str, ...]]:
    for rivals in (1, 3, 7):
        yield str(rivals), *(f"{smallest(rivals, draws) / POINT:.2f} points" for draws in (5, 10, 20))


def sharing(random: Random, overlap: float, seeds: float, draws: int = 10) -> tuple[bool, bool, bool]:
    """Draws of 20 images from one pool, of which two draws share `overlap`; `seeds` of the variance is of the seeds.

    An image has an effect on the difference, which is the mean of the effects of those drawn. Returns whether the plain
    interval covers the mean of the pool, whether it covers that of the source (0), and whether the corrected one does.
    """
    drawn = 20
    pool = random.normal(0, POINT * math.sqrt(drawn), round(drawn / overlap))
    chosen = random.random((draws, len(pool))).argpartition(drawn - 1, axis=1)[:, :drawn]
    values = math.sqrt(1 - seeds) * pool[chosen].mean(axis=1) + math.sqrt(seeds) * random.normal(0, POINT, draws)
    plain, corrected = interval(values), interval(values, correction=correction_for(overlap))
    return plain.includes(math.sqrt(1 - seeds) * pool.mean()), plain.includes(0), corrected.includes(0)


def _sharing() -> Iterable[tuple[str, ...]]:
    random = np.random.default_rng(4)
    for overlap in (0.01, 0.1, 0.2, 0.5):
        for seeds, noise in ((0.0, "of the images alone"), (0.5, "half of the images, half of the seed")):
            found = zip(*(sharing(random, overlap, seeds) for _ in range(TIMES)), strict=True)
            yield f"{100 * overlap:.0f} %", noise, *map(_text, found)


def dividing(random: Random, test: float, draws: int = 10, images: int = 200) -> tuple[bool, bool]:
    """Two classifiers, trained and tested on divisions of the same images; by symmetry they are equally good.

    Both know the nearest class mean in three features of two normal classes: the first two, and a third of its own.
    Returns whether the plain and the corrected interval of the difference in balanced accuracy cover 0.
    """
    labels = np.arange(images) % 2
    features = random.normal(size=(images, 4)) + 0.5 * labels[:, None]
    tested = round(test * images / 2)  # of each class
    differences = []
    for _ in range(draws):
        held = np.concatenate([random.permutation(np.flatnonzero(labels == c))[:tested] for c in (0, 1)])
        kept = np.setdiff1d(np.arange(images), held)
        differences.append(np.subtract(*(_recall(features[:, [0, 1, own]], labels, kept, held) for own in (2, 3))))
    corrected = interval(differences, correction=correction_for(1 - test, test / (1 - test)))
    return interval(differences).includes(0), corrected.includes(0)


def _recall(features: Floats, labels: NDArray[np.int64], kept: NDArray[np.int64], held: NDArray[np.int64]) -> float:
    """Mean recall of the nearest class mean, learned on `kept`, on `held`, which has as many images of each class."""
    means = np.array([features[kept][labels[kept] == c].mean(axis=0) for c in (0, 1)])
    distances = ((features[held][:, None] - means) ** 2).sum(axis=2)
    return float((distances.argmin(axis=1) == labels[held]).mean())


def _dividing() -> Iterable[tuple[str, ...]]:
    random = np.random.default_rng(5)
    for test in (0.2, 0.5):
        for draws in (5, 10, 20):
            found = zip(*(dividing(random, test, draws) for _ in range(TIMES // 4)), strict=True)
            yield f"{100 * test:.0f} %", str(draws), *map(_text, found)


_BALANCED = metric_of("balanced_accuracy", (1, 1, 1))


def other_images(random: Random, draws: int, alike: bool, images: int = 200) -> tuple[Interval, Interval]:
    """Two equally good contestants on three classes; all draws score the same test images.

    Some images are hard for a contestant in all its draws, some in one draw. With `alike` some are hard for both.
    Returns the interval over draws, and the one over draws and test images.
    """
    hard = random.normal(size=(1 if alike else 2, 1, 3, images))
    margins = 1.5 + hard + 0.7 * random.normal(size=(2, 1, 3, images)) + 0.7 * random.normal(size=(2, draws, 3, images))
    hits = (margins + 0.05 * random.normal(size=(2, draws, 3, 1)) > 0).sum(axis=3)
    confusions = hits[..., None] * np.eye(3, dtype=int)
    confusions[..., range(3), [1, 2, 0]] += images - hits  # a mistake goes to the next class
    sides = [dict(enumerate(side.tolist())) for side in confusions]
    scores = hits.mean(axis=2) / images  # balanced accuracy, (2, draws)
    both = bootstrap(*sides, _BALANCED, resamples=100, seed=int(random.integers(2**32)))
    return interval(scores[0] - scores[1]), both


def _tests() -> Iterable[tuple[str, ...]]:
    random = np.random.default_rng(6)
    for alike, which in ((True, "many are hard for both"), (False, "others for each of the two")):
        for draws in (5, 10):
            found = zip(*(other_images(random, draws, alike) for _ in range(TIMES // 8)), strict=True)
            yield which, str(draws), *(text for each in found for text in _covering(each))


def _covering(intervals: Sequence[Interval]) -> tuple[str, str]:
    """How often they cover 0, and the mean of half their width."""
    half = float(np.mean([each.high - each.mean for each in intervals]))
    return _text(each.includes(0) for each in intervals), f"{half / POINT:.1f} points"


def best_is_tied(random: Random, contenders: int, draws: int) -> bool:
    """Whether the one that is truly best, by a hundredth of a point, is among those tied with the best."""
    scores = contest(random, draws, [POINT / 100] + [0.0] * (contenders - 2))
    return any(one.contender == "rival 1" and one.tied for one in tied_with_best(scores))


def _tied() -> Iterable[tuple[str, ...]]:
    random = np.random.default_rng(7)
    for contenders in (3, 8):
        for draws in (5, 10):
            found = (best_is_tied(random, contenders, draws) for _ in range(TIMES))
            yield str(contenders), str(draws), _text(found)


if __name__ == "__main__":
    main()
