"""What a comparison found: verdicts over paired draws, and all that is needed to check them.

`results` makes one document. The terminal, the page, the Markdown and the JSON are four views of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from optuna.trial import TrialState

from affinity_search.search.experiments.document import (
    ComparisonModel,
    ContestantModel,
    IntervalModel,
    LevelModel,
    PointModel,
    RunModel,
    SearchModel,
    VerdictModel,
)
from affinity_search.search.experiments.evaluate import contenders
from affinity_search.search.experiments.statistics import (
    LEAST_DRAWS,
    Interval,
    Verdict,
    bootstrap,
    correction_for,
    interval,
    metric_of,
    verdicts,
)
from affinity_search.search.training.data.splits import imbalance_of, test_shares
from affinity_search.storage.places.claims import Places
from affinity_search.storage.results.export import best_trials, export, exported_pruning, to_plain
from affinity_search.storage.results.final_runs import FinalRun, FinalRuns
from affinity_search.storage.stored.comparisons import Part, StoredComparison
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.studies import bundled
from affinity_search.studies.comparisons import ComparisonSpec, common, load_comparison
from affinity_search.studies.errors import enumeration
from affinity_search.studies.metrics import METRICS, score_of
from affinity_search.studies.model.spec import StudySpec

WITHOUT_MATRIX = ("calibration",)  # a confusion matrix does not tell it, so test images cannot be resampled


def results(comparison: StoredComparison) -> ComparisonModel:
    """The comparison as it stands now; unfinished ones too."""
    spec = comparison.spec
    parts = comparison.parts()
    texts = dict.fromkeys(part.entry.level_text for part in parts)
    levels = [_level(comparison, [part for part in parts if part.entry.level_text == text]) for text in texts]
    facts = [fact for part in parts for fact in _facts(part)]
    base = spec.base
    return ComparisonModel(
        comparison=spec.name,
        finished=not comparison.is_unfinished,
        dataset=base.data.title,
        protocol=base.protocol,
        metric=base.metric,
        label=base.score.label,
        baseline=spec.baseline,
        draws=spec.draws,
        trials=max(entry.spec.trials for entry in spec.entries),
        epochs=base.training.epochs,
        classes=list(base.data.source.classes),
        levels=levels,
        devices=sorted({fact.device for fact in facts if fact.device}),
        versions=_versions(facts),
        settings=common([entry.spec for entry in spec.entries]),
        definition=spec.to_dict(),
        file=spec.to_toml(),
        command=f"affinity-search compare {spec.name}{'' if _is_bundled(spec) else '.toml'}",
    )


def _is_bundled(spec: ComparisonSpec) -> bool:
    """Whether the bundled comparison of that name is this one, without changes."""
    return spec.name in bundled.comparisons() and load_comparison(spec.name, {}) == spec


def _facts(part: Part) -> list[TrialFacts]:
    studies = [part.search, *([part.final] if part.final else [])]
    return [TrialFacts.of(trial) for study in studies for trial in study.optuna.get_trials(deepcopy=False)]


def _versions(facts: Sequence[TrialFacts]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for fact in facts:
        for package, version in (fact.versions or {}).items():
            found.setdefault(package, set()).add(version)
    return {package: sorted(versions) for package, versions in sorted(found.items())}


def _level(comparison: StoredComparison, parts: Sequence[Part]) -> LevelModel:
    spec, first = comparison.spec, parts[0].entry.spec
    data = first.data
    made = imbalance_of(data.source, data.minority)
    sizes = tuple(map(min, data.source.train, made.kept))
    correction = _correction(first, sizes)
    judged = {part.entry.contestant: FinalRuns.of(part.search) for part in parts}
    found = _verdicts(spec.baseline, first, sizes, judged, correction)
    contestants = [_contestant(part, judged[part.entry.contestant], found, correction) for part in parts]
    ranked = sorted(contestants, key=lambda one: -(one.means.get(first.metric, -1.0)))
    return LevelModel(
        level=dict(parts[0].entry.level),
        text=parts[0].entry.level_text,
        verdict=sentence(spec.baseline, first.score.label, ranked),
        class_sizes=list(sizes),
        correction=correction,
        contestants=ranked,
    )


def _correction(spec: StudySpec, sizes: Sequence[int]) -> float:
    """What the variance of a mean over draws gets because draws share images; as `correction_for`.

    Under `article` the images stay, and an interval is about other seeds alone. So it is where own data bring their
    validation images and keep all others. Of a published set with few images in its small classes, draws share the
    images that these classes have in common. Else every draw divides the same images anew.
    """
    data = spec.data
    if spec.protocol == "article":
        return 0.0
    given = data.found is not None and bool(data.found.validation)
    if (data.source.profile == "step" and not data.own) or given:
        drawn = [kept / there for kept, there in zip(sizes, data.source.train, strict=True) if kept < there]
        return correction_for(max(drawn, default=0.0))
    held = data.held_out or 0.0
    return correction_for(1 - held, held / (1 - held))


def _told_by(runs: FinalRuns, key: str) -> dict[int, Any]:
    """What the scores have under `key`, by draw, of the one trial that a comparison judges."""
    judged = next(iter(runs.scores.values()), {})
    return {draw: told[key] for draw, told in judged.items()}


def _verdicts(
    baseline: str, spec: StudySpec, sizes: Sequence[int], judged: Mapping[str, FinalRuns], correction: float
) -> dict[str, Verdict]:
    scores = {name: _told_by(runs, spec.metric) for name, runs in judged.items()}
    if not scores.get(baseline):
        return {}
    wider: dict[str, Interval] = {}
    if spec.metric not in WITHOUT_MATRIX:
        matrices = {name: _told_by(runs, "confusion") for name, runs in judged.items()}
        images = np.sum(next(iter(matrices[baseline].values())), axis=1)
        metric = metric_of(spec.metric, sizes, _shares(spec, images))
        for name in scores:
            if name != baseline and len(matrices[name].keys() & matrices[baseline].keys()) > 1:
                wider[name] = bootstrap(matrices[name], matrices[baseline], metric, correction=correction)
    return verdicts(scores, baseline, correction=correction, with_test_images=wider)


def _shares(spec: StudySpec, images: Sequence[int]) -> tuple[float, ...] | None:
    """How many test images of each class the study imagines, of these `images`; None where they stay as they are."""
    if spec.protocol == "article":
        return None
    return test_shares(images, spec.data.minority, spec.data.source)


def _contestant(part: Part, runs: FinalRuns, found: Mapping[str, Verdict], correction: float) -> ContestantModel:
    spec, name = part.entry.spec, part.entry.contestant
    scores = _told_by(runs, spec.metric)
    told = [run.scores for run in runs.runs if run.scores is not None]
    search = _search(part)
    params = {run.trial: run.params for run in runs.runs}
    chosen = next(iter(params.values()), None)
    over = interval(list(scores.values()), correction=correction) if scores else None
    verdict = found.get(name)
    return ContestantModel(
        contestant=name,
        head=spec.network.head,
        symbols={key: spec.head.symbol(key) for key in spec.searched},
        space={key: parameter.describe() for key, parameter in (spec.space.items() if spec.space else ())},
        params=dict(chosen) if chosen is not None else None,
        search=search,
        runs=[_run(run) for run in runs.runs],
        final_epochs=sum(each.get("epochs", 0) for each in told),
        final_seconds=sum(each.get("duration_s", 0.0) for each in told),
        means=_means(told),
        interval=IntervalModel.model_validate(over.to_dict()) if over else None,
        median=float(np.median(list(scores.values()))) if scores else None,
        verdict=VerdictModel.model_validate(verdict.to_dict()) if verdict else None,
        published=part.entry.published,
    )


def _means(told: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    keys = [key for key in METRICS if told and all(key in each for each in told)]
    return {key: float(np.mean([each[key] for each in told])) for key in keys}


def _run(run: FinalRun) -> RunModel:
    told = run.scores or {}
    confusion = np.array(told.get("confusion", []), float)
    totals = confusion.sum(axis=1) if confusion.size else np.array([])
    recalls = [float(confusion[at, at] / total) if total else None for at, total in enumerate(totals)]
    plain = told.get("plain", {})
    return RunModel(
        draw=run.draw,
        seed=run.seed,
        state=_STATES.get(run.place.state.value, "running"),
        metrics={key: told[key] for key in METRICS if key in told},
        plain={key: plain[key] for key in METRICS if key in plain},
        recalls=recalls,
        best_epoch=told.get("best_epoch"),
        seconds=told.get("duration_s"),
        reason=run.place.reason if run.scores is None and run.place.is_used else None,
        opened_by=run.opened_by,
    )


_STATES: dict[str, Literal["complete", "failed", "waiting", "running"]] = {
    "complete": "complete",
    "spent": "failed",
    "free": "waiting",
    "held": "running",
}


def _search(part: Part) -> SearchModel:
    places = Places.of(part.search)
    counts = places.counts()
    points = _points(part)
    facts = [TrialFacts.of(trial) for trial in part.search.optuna.get_trials(deepcopy=False)]
    best = best_trials(part.search)[0] if places.scored() else None
    return SearchModel(
        study=part.search.name,
        places=counts.total,
        complete=counts.complete,
        pruned=counts.pruned,
        failed=counts.failed,
        epochs=points[-1].epochs_spent if points else 0,
        seconds=sum(fact.duration_s or 0.0 for fact in facts),
        best=score_of(best.place.value) if best else None,
        trial=best.trial.number if best else None,
        reasons=places.failures() if counts.failed else {},
        pruning=exported_pruning(part.search),
        points=points,
    )


def _points(part: Part) -> list[PointModel]:
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = part.search.optuna.get_trials(deepcopy=False, states=ended)
    found: list[PointModel] = []
    spent = 0
    for trial in sorted(trials, key=lambda one: (one.datetime_complete or one.datetime_start, one.number)):
        scores = TrialFacts.of(trial).scores
        if scores is None:
            continue
        spent += scores.epochs
        found.append(
            PointModel(
                trial=trial.number,
                params=dict(trial.params),
                score=scores.metrics[part.search.spec.metric],
                epochs=scores.epochs,
                pruned=trial.state == TrialState.PRUNED,
                epochs_spent=spent,
            )
        )
    return found


def winners(comparison: StoredComparison) -> dict[str, Any]:
    """For each level the contestant with the best mean, its settings and its search's export; ready for JSON.

    Raises:
        NothingToExportError: no contestant has a value yet.
    """
    found = results(comparison)
    searches = {(part.entry.level_text, part.entry.contestant): part.search for part in comparison.parts()}
    levels = []
    for level in found.levels:
        best = level.contestants[0]
        told = best.model_dump(mode="json", include={"contestant", "head", "params", "means", "interval", "verdict"})
        search = searches[level.text, best.contestant].refreshed()
        exported = to_plain(export(search, contenders=contenders(search)))
        levels.append({"level": level.level, "verdict": level.verdict, "best": told, "export": exported})
    own = found.model_dump(mode="json", include={"comparison", "finished", "metric", "baseline", "draws"})
    return {"schema_version": 1, **own, "levels": levels}


def sentence(baseline: str, label: str, contestants: Sequence[ContestantModel]) -> str:
    """The verdicts in words: what is better or worse with its interval, and what was not shown."""
    judged = [one for one in contestants if one.verdict is not None and one.means]
    if not any(one.contestant == baseline and one.means for one in contestants):
        return f"No verdict: the baseline {baseline} has no final run with a score."
    parts = [_told(one.verdict, baseline, label) for one in judged if one.verdict and one.verdict.verdict in WORDS]
    nothing = [one.verdict for one in judged if one.verdict and one.verdict.verdict == "no difference shown"]
    parts += [_not_shown(verdict) for verdict in nothing]
    few = [one.contestant for one in judged if one.verdict and one.verdict.verdict == "too few draws"]
    if few:
        parts.append(f"{enumeration(few)}: no verdict, as fewer than {LEAST_DRAWS} draws have a pair with {baseline}")
    for one in contestants:
        lost = sum(run.state == "failed" for run in one.runs)
        parts += [f"{one.contestant}: {lost} of {len(one.runs)} final runs failed and are left out"] if lost else []
    failed = [one.contestant for one in contestants if not one.means and one.search.failed == one.search.places]
    if failed:
        parts.append(f"{enumeration(failed)}: every trial of the search failed")
    waiting = [one.contestant for one in contestants if not one.means and one.contestant not in failed]
    if waiting:
        parts.append(f"{enumeration(waiting)}: no final run has a score yet")
    return f"On these images {'; '.join(parts)}."


WORDS = ("better", "worse")


def _told(verdict: VerdictModel, baseline: str, label: str) -> str:
    difference = verdict.difference
    assert difference.mean is not None
    by = f"{abs(100 * difference.mean):.1f} points of {label}"
    ends = sorted(abs(100 * (end or 0.0)) for end in (difference.low, difference.high))
    if difference.low is None or difference.low * (difference.high or 0.0) < 0:
        over = _ends(difference)
    else:
        over = f"95 % interval {ends[0]:.1f} to {ends[1]:.1f}"
    return f"{verdict.contestant} is {verdict.verdict} than {baseline} by {by} ({over}, {difference.n} draws)"


def _ends(difference: IntervalModel) -> str:
    if difference.low is None or difference.high is None:
        return "no interval"
    return f"95 % interval {_signed(difference.low)} to {_signed(difference.high)}"


def _not_shown(verdict: VerdictModel) -> str:
    least = "" if verdict.smallest is None else f", at least {100 * verdict.smallest:.1f} points would have been"
    mean = _signed(verdict.difference.mean or 0.0)
    return f"{verdict.contestant}: no difference shown ({mean}, {_ends(verdict.difference)}){least}"


def _signed(share: float) -> str:
    """With its sign, as printed: `+1.2`, `−0.3`, `0.0`."""
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"
