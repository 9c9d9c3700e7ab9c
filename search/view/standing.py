"""How the trials of one study compare: ranks, attempts at the same place, and what their diagnostics say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from statistics import median

from optuna.trial import FrozenTrial, TrialState

from affinity_search.search.training.heads.affinity_diagnostics import SIGNS, Diagnostics, Sign
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialScores, place_of
from affinity_search.studies.metrics import DEFAULT, METRICS


@dataclass(frozen=True)
class Standing:
    """Of one moment; trials and places by their numbers."""

    study: StoredStudy
    ranks: Mapping[int, int]  # of the trials with a value; the places' rows decide which have one
    later: Mapping[int, int]  # trial: the next attempt at its place
    states: Mapping[int, PlaceState]  # place: its state
    judged: int  # how many trials had a value when the verdicts were found
    verdicts: Sequence[Verdict]


def standing_of(study: StoredStudy, trials: Sequence[FrozenTrial], before: Standing | None = None) -> Standing:
    """Read the places' rows and compare the trials. Verdicts of `before` are kept until the study has grown by a
    twentieth.
    """
    outcomes = Places.of(study).outcomes()
    valued = sorted((one.value, one.trial) for one in outcomes if one.value is not None and one.trial is not None)
    ranks = {trial: rank for rank, (_, trial) in enumerate(valued, start=1)}
    states = {one.number: one.state for one in outcomes}
    if before is None or len(ranks) > 1.05 * before.judged:
        judged = len(ranks), verdicts(trials, study.spec.metric)
    else:
        judged = before.judged, list(before.verdicts)
    return Standing(study, ranks, _later(trials), states, *judged)


def _later(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    found: dict[int, int] = {}
    last: dict[int, int] = {}
    for trial in trials:
        place = place_of(trial)
        if place in last:
            found[last[place]] = trial.number
        if place is not None:
            last[place] = trial.number
    return found


LEAST = 10  # trials with a sign, and as many without
P_MOST = 0.001  # strict, as there are two signs and several parameters, tested again and again while the study grows
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Judged:
    """A trial that has a score and diagnostics."""

    number: int
    score: float  # by the study's metric
    told: Diagnostics
    params: dict[str, float]


@dataclass(frozen=True)
class Apart:
    """The parameter in which trials with a sign differ most from those without it: its medians, and the test's p."""

    name: str
    with_sign: float
    without: float
    p: float


@dataclass(frozen=True)
class Verdict:
    """A sign that goes with worse scores: the trials with it and without it, and the test's p."""

    sign: Sign
    with_sign: tuple[Judged, ...]
    without: tuple[Judged, ...]
    p: float
    apart: Apart
    metric: str

    @cached_property
    def concerns(self) -> frozenset[int]:
        """Numbers of the trials that show the sign and score less than the median of those without it."""
        middle = _middle(self.without)
        return frozenset(one.number for one in self.with_sign if one.score < middle)

    @cached_property
    def text(self) -> str:
        """The verdict with its figures, in two sentences."""
        apart = self.apart
        other = "smaller" if apart.with_sign > apart.without else "larger"
        return (
            f"The {len(self.with_sign)} trials with {self.sign.text} did worse than the {len(self.without)} without: "
            f"median {METRICS[self.metric].label} {_middle(self.with_sign):.4f} against {_middle(self.without):.4f} "
            f"(rank test, p = {self.p:.1g}). They differ most in {apart.name}, median {apart.with_sign:.3g} against "
            f"{apart.without:.3g} (p = {apart.p:.1g}): try a {other} {apart.name}."
        )


def verdicts(trials: Sequence[FrozenTrial], metric: str = DEFAULT) -> list[Verdict]:
    """The verdicts that the study's trials confirm. A sign needs ten trials with it and ten without it."""
    judged = [one for trial in trials if (one := _judged(trial, metric)) is not None]
    found = [_verdict(sign, judged, metric) for sign in SIGNS]
    return [verdict for verdict in found if verdict is not None]


def diagnosed(scores: TrialScores) -> Diagnostics | None:
    """The diagnostics of a trial; None for a head without any."""
    told = scores.diagnostics
    # Earlier versions also stored a judgement of the single trial.
    return Diagnostics.from_dict({field.name: told[field.name] for field in fields(Diagnostics)}) if told else None


def _judged(trial: FrozenTrial, metric: str) -> Judged | None:
    scores = TrialScores.of(trial) if trial.state in ENDED else None
    told = diagnosed(scores) if scores else None
    if scores is None or told is None or math.isnan(scores.metrics[metric]):
        return None
    return Judged(trial.number, scores.metrics[metric], told, trial.params)


def _verdict(sign: Sign, judged: Sequence[Judged], metric: str) -> Verdict | None:
    shown = [sign.shows(one.told) for one in judged]
    with_sign = tuple(one for one, shows in zip(judged, shown, strict=True) if shows)
    without = tuple(one for one, shows in zip(judged, shown, strict=True) if not shows)
    if min(len(with_sign), len(without)) < LEAST:
        return None
    p = _rank_test([one.score for one in with_sign], [one.score for one in without], "less")
    apart = _apart(with_sign, without)
    if p >= P_MOST or apart is None or apart.p >= P_MOST:
        return None
    return Verdict(sign, with_sign, without, p, apart, metric)


def _apart(with_sign: Sequence[Judged], without: Sequence[Judged]) -> Apart | None:
    def compared(name: str) -> Apart:
        here, there = ([one.params[name] for one in side] for side in (with_sign, without))
        return Apart(name, median(here), median(there), _rank_test(here, there, "two-sided"))

    # With equal medians there is nothing to advise.
    found = [one for one in map(compared, with_sign[0].params) if one.with_sign != one.without]
    return min(found, key=lambda one: one.p, default=None)


def _rank_test(here: Sequence[float], there: Sequence[float], alternative: str) -> float:
    """Mann and Whitney's test: it makes no assumption on how scores are distributed."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(here, there, alternative=alternative).pvalue)


def _middle(side: Sequence[Judged]) -> float:
    return median(one.score for one in side)
