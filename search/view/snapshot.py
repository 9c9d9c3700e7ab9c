"""The state of a search or of a comparison, read from the database: for the live view, `status` and plain lines."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from affinity_search.storage.database.tables import Stop
from affinity_search.storage.errors import NothingToExportError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.closing import Closing, closing_of, hindsight
from affinity_search.storage.places.counts import Counts, counts_of
from affinity_search.storage.places.place import HeldPlace
from affinity_search.storage.results.export import best_trials
from affinity_search.storage.results.pruning import pruning_of
from affinity_search.storage.stored.comparisons import Part, StoredComparison
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts, place_of
from affinity_search.studies.heads import HeadDefinition
from affinity_search.studies.metrics import score_of

ENOUGH = 2  # used places, plus one for each worker, before their mean time can tell the next one's


@dataclass(frozen=True)
class Running:
    """A held place and the trial that is trained at it."""

    worker: str
    device: str
    host: str
    place: int
    attempt: int
    trial: int | None
    epoch: int  # finished epochs
    share: float  # how much of the first epoch is done, while it lasts
    score: float | None  # the best so far
    since_s: float


@dataclass(frozen=True)
class Best:
    """The best trial, complete or pruned."""

    trial: int
    value: float
    macro_f1: float
    params: dict[str, float | int]
    epoch: int  # its best one, from 1
    state: str
    label: str  # what the score is: the metric's name for people
    head: HeadDefinition  # whose parameters `params` are
    metrics: Mapping[str, float]  # all that the trial tells, by their keys

    @property
    def score(self) -> float:
        """By the study's metric."""
        return score_of(self.value)


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment."""

    study: str
    protocol: str
    label: str  # what a score is: the metric's name for people
    dataset: str
    title: str  # what people call the data
    minority: int | None
    imbalance: str  # how the set was made imbalanced, for people
    epochs: int
    counts: Counts
    best: Best | None
    running: tuple[Running, ...]
    attempts: int  # Optuna trials that were begun
    left_s: float | None  # None while nothing is known
    left_is_most: bool  # whether it assumes that no trial is pruned: so far too few have ended
    failures: dict[str, int]  # why places were spent without a value, and how many
    stopped: Stop | None  # between `stop` and `launch`
    closed: Closing | None  # since the search was flat
    is_final: bool  # whether its places are final runs: then there is no best one
    tested: tuple[float, int] | None  # of final runs: the mean score on the test images, and of how many
    foreign: int  # trials that another program put into the study; no worker trains them

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        best = self.best and {
            "trial": self.best.trial,
            "value": self.best.value,
            "macro_f1": self.best.macro_f1,
            "params": self.best.params,
            "epoch": self.best.epoch,
            "state": self.best.state,
            "metrics": dict(self.best.metrics),
        }
        told = ("study", "protocol", "dataset", "minority", "imbalance", "epochs", "attempts")
        own = {key: getattr(self, key) for key in told}
        running = [vars(one) for one in self.running]
        return own | {
            "counts": self.counts.to_dict(),
            "best": best,
            "running": running,
            "left_s": self.left_s,
            "left_is_most": self.left_is_most,
            "failures": self.failures,
            "stopped": self.stopped,
            "closed": self.closed and self.closed.to_dict(),
            "is_final": self.is_final,
            "tested": self.tested and {"mean": self.tested[0], "runs": self.tested[1]},
            "foreign": self.foreign,
        }


def take(study: StoredStudy, workers: int = 0) -> Snapshot:
    """Read the study's present state. `workers` are known to run, even if some are between two trials."""
    places = Places.of(study)
    now = study.backend.time()
    held = places.held()
    counts = places.counts()
    trials = {t.number: t for t in study.optuna.get_trials(deepcopy=False)}
    own = sum(place_of(trial) is not None for trial in trials.values())
    spec = study.spec
    running = tuple(_running(place, trials, now) for place in held)
    workers = max(workers, len(running))
    known = counts.used >= max(ENOUGH, workers)
    trial_s = places.mean_duration_s() if known else _whole_s(running, spec.trial_epochs)
    return Snapshot(
        study=spec.name,
        protocol=spec.protocol,
        label=spec.score.label,
        dataset=spec.data.set,
        title=spec.data.title,
        minority=spec.data.minority,
        imbalance=spec.data.imbalance_text,
        epochs=spec.trial_epochs,
        counts=counts,
        best=None if study.search else _best(study),
        running=running,
        attempts=own,
        left_s=_left_s(trial_s, counts, running, workers),
        left_is_most=not known,
        failures=places.failures() if counts.failed else {},
        stopped=study.stopped,
        closed=closing_of(study) if counts.closed else None,
        is_final=study.search is not None,
        tested=_tested(study) if study.search else None,
        foreign=len(trials) - own,
    )


def lines_on(study: StoredStudy) -> list[str]:
    """What a person should know of a search: what pruning saved and whether it was right, and whether the search could
    have ended earlier.
    """
    if study.search is not None:
        return []
    return [one.text for one in (pruning_of(study), hindsight(study)) if one is not None and one.text is not None]


def _best(study: StoredStudy) -> Best | None:
    with contextlib.suppress(NothingToExportError, IndexError):
        best = best_trials(study)[0]
        place, scores = best.place, best.scores
        reached = scores.best_epoch, place.state, study.spec.score.label, study.spec.head
        return Best(best.trial.number, place.value, scores.macro_f1, place.params, *reached, scores.metrics)
    return None


def _tested(study: StoredStudy) -> tuple[float, int] | None:
    scores = [score_of(one.value) for one in Places.of(study).outcomes() if one.value is not None]
    return (sum(scores) / len(scores), len(scores)) if scores else None


def _running(place: HeldPlace, trials: Mapping[int, FrozenTrial], now: float) -> Running:
    trial = None if place.trial is None else trials.get(place.trial)
    scores = trial.intermediate_values if trial else {}
    return Running(
        worker=place.worker,
        device=place.device,
        host=place.host,
        place=place.number,
        attempt=place.attempt,
        trial=place.trial,
        epoch=len(scores),
        share=0.0 if scores or trial is None else TrialFacts.of(trial).first_epoch or 0.0,
        score=score_of(scores[max(scores)]) if scores else None,
        since_s=max(0.0, now - place.claimed_at),
    )


def _whole_s(running: Sequence[Running], epochs: int) -> float | None:
    """How long a whole trial takes, estimated from the running ones. None before they have reported anything."""
    told = [one.since_s / (one.epoch + one.share) for one in running if one.epoch + one.share]
    return epochs * sum(told) / len(told) if told else None


def _left_s(trial_s: float | None, counts: Counts, running: Sequence[Running], workers: int) -> float | None:
    """(A trial's time × free places + what is left of the running trials) / workers."""
    if counts.used == counts.total:
        return 0.0
    if trial_s is None or not running:
        return None
    return (trial_s * counts.free + sum(max(0.0, trial_s - one.since_s) for one in running)) / workers


def last_end_s(snapshot: Snapshot) -> float | None:
    """In how many seconds the last running trial ends, if none is pruned. None if that is unknown."""
    whole_s = _whole_s(snapshot.running, snapshot.epochs)
    if whole_s is None:
        return None
    return max(max(0.0, whole_s - one.since_s) for one in snapshot.running)


@dataclass(frozen=True)
class Contest:
    """A contestant at one level, on its way: the places of its search and of its final runs."""

    contestant: str
    level: str  # empty without levels
    search: Counts
    final: Counts | None  # None until they are planned
    best: float | None  # of the search, by the comparison's metric
    mean: float | None  # of the final runs so far, on the test images


@dataclass(frozen=True)
class ComparisonSnapshot:
    """A comparison at one moment."""

    comparison: str
    label: str  # what a score is: the metric's name for people
    draws: int
    contests: tuple[Contest, ...]
    running: tuple[tuple[str, int, Running], ...]  # the study and its epochs
    used: int
    total: int  # places, with the final runs that are not planned yet
    failed: int
    left_s: float | None  # None while nothing is known
    stopped: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        contests = [
            vars(one) | {"search": one.search.to_dict(), "final": one.final and one.final.to_dict()}
            for one in self.contests
        ]
        own = {
            key: getattr(self, key) for key in ("comparison", "draws", "used", "total", "failed", "left_s", "stopped")
        }
        running = [{"study": study} | vars(one) for study, _, one in self.running]
        return own | {"contests": contests, "running": running}


def take_comparison(comparison: StoredComparison, workers: int = 0) -> ComparisonSnapshot:
    """Read the comparison's present state. `workers` are known to run."""
    spec, parts = comparison.spec, comparison.parts()
    studies = [study for part in parts for study in (part.search, part.final) if study is not None]
    counts = counts_of(comparison.backend, [study.token for study in studies])
    contests = tuple(
        Contest(
            part.entry.contestant,
            part.entry.level_text,
            counts[part.search.token],
            counts[part.final.token] if part.final else None,
            *_reached(part),
        )
        for part in parts
    )
    now = comparison.backend.time()
    running = [
        (study.name, study.spec.trial_epochs, one)
        for study in studies
        if counts[study.token].running
        for one in _running_of(study, now)
    ]
    every = [each for one in contests for each in (one.search, one.final) if each is not None]
    planned = sum(each.total for each in every)
    to_come = spec.draws * sum(one.final is None and not _failed(one.search) for one in contests)
    used = sum(each.used for each in every)
    return ComparisonSnapshot(
        comparison.name,
        spec.base.score.label,
        spec.draws,
        contests,
        tuple(running),
        used,
        planned + to_come,
        sum(each.failed for each in every),
        _comparison_left_s(parts, contests, spec.draws, max(workers, len(running))),
        any(study.stopped is not None for study in comparison.refreshed().studies),
    )


def _failed(search: Counts) -> bool:
    return search.total == search.failed


def _running_of(study: StoredStudy, now: float) -> list[Running]:
    trials = {trial.number: trial for trial in study.optuna.get_trials(deepcopy=False)}
    return [_running(place, trials, now) for place in Places.of(study).held()]


def _reached(part: Part) -> tuple[float | None, float | None]:
    """The best score of the search, and the mean of the final runs."""
    best = Places.of(part.search).best_rows(1)
    tested = _tested(part.final) if part.final else None
    return score_of(best[0].value) if best else None, tested[0] if tested else None


def _comparison_left_s(parts: Sequence[Part], contests: Sequence[Contest], draws: int, workers: int) -> float | None:
    """What the places that are left take, each as long as its study's took on average. None before the first end."""
    known: list[float] = []
    left: list[tuple[int, float | None]] = []
    for part, one in zip(parts, contests, strict=True):
        searched = Places.of(part.search).mean_duration_s() if one.search.used else None
        judged = Places.of(part.final).mean_duration_s() if part.final and one.final and one.final.used else None
        known += [mean for mean in (searched, judged) if mean is not None]
        left.append((one.search.total - one.search.used, searched))
        runs = one.final.total - one.final.used if one.final else 0 if _failed(one.search) else draws
        left.append((runs, judged or searched))
    if not known:
        return None if any(count for count, _ in left) else 0.0
    usual = sum(known) / len(known)
    return sum(count * (mean or usual) for count, mean in left) / max(workers, 1)
