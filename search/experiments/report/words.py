"""How the report writes numbers, verdicts and what is missing; the page and the Markdown say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from affinity_search.search.experiments.compare import sentence
from affinity_search.search.experiments.document import ComparisonModel, ContestantModel, IntervalModel, LevelModel
from affinity_search.search.experiments.statistics import LEAST_DRAWS
from affinity_search.search.view.terminal import plural
from affinity_search.studies.errors import enumeration
from affinity_search.studies.metrics import METRICS

NOTHING = "–"
Kind = Literal["better", "worse", "none", "few", "open", "baseline", "failed"]


@dataclass(frozen=True)
class Shown:
    """A verdict as people read it, and what colours it."""

    text: str
    kind: Kind


def points(score: float | None, *, signed: bool = False) -> str:
    """A fraction in points, with a real minus sign."""
    if score is None:
        return NOTHING
    value = round(100 * score, 1) + 0.0  # −0.04 is written as 0.0, without a sign
    text = f"{value:+.1f}" if signed and value else f"{value:.1f}"
    return text.replace("-", "−")


def ends(interval: IntervalModel | None, *, signed: bool = False) -> str:
    """`5.6 to 7.1`; empty without an interval."""
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"{points(interval.low, signed=signed)} to {points(interval.high, signed=signed)}"


def number(value: float) -> str:
    """A setting's value."""
    return f"{value:.3g}"


def settings_text(one: ContestantModel) -> str:
    """`λ 0.435, σ 90.7`."""
    return ", ".join(f"{one.symbols.get(key, key)} {number(value)}" for key, value in (one.params or {}).items())


def metric_label(key: str) -> str:
    return METRICS[key].label if key in METRICS else key


def level_title(level: LevelModel) -> str:
    return level.text or "All images"


def contestants_of(found: ComparisonModel) -> list[str]:
    """All of them in one order for the whole report, the baseline first."""
    names = dict.fromkeys(one.contestant for level in found.levels for one in level.contestants)
    return sorted(names, key=lambda name: name != found.baseline)


def baseline_of(found: ComparisonModel, level: LevelModel) -> ContestantModel | None:
    return next((one for one in level.contestants if one.contestant == found.baseline), None)


def is_dead(one: ContestantModel) -> bool:
    """Its search has ended without any score, so that there is nothing to judge."""
    search = one.search
    return search.best is None and search.complete + search.pruned + search.failed >= search.places


def missing_draws(found: ComparisonModel, one: ContestantModel) -> list[int]:
    """The draws that a later call will train. One that failed is not missing: nobody tries it again."""
    if is_dead(one):
        return []
    ended = {run.draw for run in one.runs if run.state in ("complete", "failed")}
    return [draw for draw in range(1, found.draws + 1) if draw not in ended]


def shown_verdict(found: ComparisonModel, level: LevelModel, one: ContestantModel) -> Shown:
    """Without a verdict while draws are missing: who looks at every new draw finds something sooner or later."""
    if is_dead(one):
        return Shown("every trial failed", "failed")
    missing = missing_draws(found, one)
    if one.contestant == found.baseline:
        return Shown("baseline", "baseline")
    base = baseline_of(found, level)
    if missing or (base and missing_draws(found, base)):
        return Shown(f"not yet: {found.draws - len(missing)} of {found.draws} draws", "open")
    if one.verdict is None:
        return Shown("no score" if not one.means else "no verdict", "failed")
    if one.verdict.verdict == "too few draws":
        return Shown(f"no verdict: {plural(one.verdict.difference.n, 'draw')}", "few")
    kinds: Mapping[str, Kind] = {"better": "better", "worse": "worse", "no difference shown": "none"}
    return Shown(one.verdict.verdict, kinds[one.verdict.verdict])


def summary(found: ComparisonModel, level: LevelModel) -> str:
    """The verdicts in one line, without intervals."""
    by_kind: dict[Kind, list[str]] = {}
    for one in level.contestants:
        by_kind.setdefault(shown_verdict(found, level, one).kind, []).append(_with_difference(one))
    heads: tuple[tuple[Kind, str], ...] = (
        ("better", f"Better than {found.baseline}"),
        ("worse", f"Worse than {found.baseline}"),
        ("none", "No difference shown"),
        ("open", "No verdict yet"),
        ("few", "No verdict, too few draws"),
        ("failed", "No score"),
    )
    told = [f"{head}: {', '.join(by_kind[kind])}." for kind, head in heads if kind in by_kind]
    return " ".join(told) or "Nothing is compared yet."


def _with_difference(one: ContestantModel) -> str:
    mean = one.verdict.difference.mean if one.verdict else None
    return one.contestant if mean is None else f"{one.contestant} ({points(mean, signed=True)})"


def level_verdict(found: ComparisonModel, level: LevelModel) -> str:
    """The document's sentence; where draws are missing, only of those that have all of theirs."""
    base = baseline_of(found, level)
    late = [one for one in level.contestants if missing_draws(found, one)]
    if not late:
        return level.verdict
    if base in late:
        return f"No verdict yet: the baseline {found.baseline} has not all of its {plural(found.draws, 'draw')}."
    names = enumeration([one.contestant for one in late])
    rest = [one for one in level.contestants if one not in late]
    told = f"No verdict yet on {names}: not all of {plural(found.draws, 'draw')} have a score."
    return f"{sentence(found.baseline, found.label, rest)} {told}" if len(rest) > 1 else told


def missing(found: ComparisonModel) -> list[str]:
    """One line for each thing that is still to be trained; empty for a finished comparison."""
    lines = [line for level in found.levels for one in level.contestants for line in _missing_of(found, level, one)]
    return lines or ([] if found.finished else ["Some of its runs have not ended."])


def _missing_of(found: ComparisonModel, level: LevelModel, one: ContestantModel) -> Iterator[str]:
    search, draws = one.search, missing_draws(found, one)
    name = f"{one.contestant} ({level.text})" if level.text else one.contestant
    left = search.places - search.complete - search.pruned - search.failed
    if left > 0:
        yield f"{name}: {left} of {search.places} trials of the search, and the {plural(found.draws, 'draw')} after it"
    elif draws:
        which = f" ({_listed(draws)})" if len(draws) < found.draws else ""
        yield f"{name}: {len(draws)} of {found.draws} final runs{which}"


def _listed(draws: Sequence[int]) -> str:
    shown = [str(draw) for draw in draws[:10]]
    told = enumeration(shown) if len(draws) <= 10 else ", ".join([*shown, "…"])
    return f"draw {told}" if len(draws) == 1 else f"draws {told}"


def protocol_text(found: ComparisonModel) -> str:
    if found.protocol == "article":
        return (
            "article: as in the reference, the test images score the epochs and so choose the best one. "
            "Its scores are too high."
        )
    return "holdout: a part of the training images chooses settings and epochs; the test images score final runs alone"


def draw_text(found: ComparisonModel) -> str:
    """What is fresh in a draw."""
    return "seed" if found.protocol == "article" else "choice of training images, validation images and seed"


def article_warning(found: ComparisonModel) -> str:
    """Empty under a protocol without that fault."""
    if found.protocol != "article":
        return ""
    return (
        "Protocol article: the test images chose the best epoch of every run, so all scores here are too high. They "
        "serve only to compare with published figures, and the article's figure is the median over the draws."
    )


def about_intervals(found: ComparisonModel) -> list[str]:
    """What the intervals and verdicts are about, in the order in which people ask."""
    return [
        f"A draw is a fresh {draw_text(found)}. Two contestants at the same draw are a pair, and differences are taken "
        f"within pairs: contestant − {found.baseline}.",
        "The 95 % interval is Student's t over the draws. With n draws it has n − 1 degrees of freedom.",
        "A verdict is better or worse if the interval excludes 0 after Holm's correction over all rivals of "
        f"{found.baseline}. Then the chance that any of these verdicts is false is at most 5 %. No difference shown "
        "does not say that there is none; the table has the size that would have been shown in 80 % of comparisons. "
        f"Fewer than {LEAST_DRAWS} draws give numbers, but no verdict.",
        _about_correction(found),
        "The interval with test images is about other draws and other test images too. Its second part comes from a "
        "bootstrap: the test images are drawn again, with replacement. It takes the worse case where it cannot know, "
        "so it is too wide rather than too narrow.",
        _about_choice(found),
    ]


def _about_correction(found: ComparisonModel) -> str:
    if found.protocol == "article":
        return "Under this protocol all draws train on the same images, so an interval is about other seeds alone."
    if not any(level.correction > 0 for level in found.levels):
        return (
            "The draws share at most a tenth of a class's training images, so they count as independent. An interval "
            "is about other draws from these images, scored on these test images."
        )
    values = enumeration(list(dict.fromkeys(f"{level.correction:.2f}" for level in found.levels)))
    return (
        "The draws come from one pool and share training images, so they are not independent. Every variance of a mean "
        f"has the factor 1/n + c instead of 1/n, with c = {values}, which makes the intervals wider. An interval is "
        "about other images from the same source, not about another source's."
    )


def _about_choice(found: ComparisonModel) -> str:
    if found.protocol == "article":
        return "The settings were chosen by the test images, and the final runs are scored on the same images."
    return (
        "The settings were chosen by the validation images of the search's own draw, and judged on fresh draws that no "
        "search has seen. The luck of the search itself is not in the intervals: each contestant was searched once."
    )
