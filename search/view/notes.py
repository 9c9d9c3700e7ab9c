"""The notes that the dashboard shows beside a study and beside each trial, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from affinity_search.search.training.data.splits import imbalance_of
from affinity_search.search.view.standing import Standing, Verdict, diagnosed
from affinity_search.storage.database.tables import Cause, PlaceState
from affinity_search.storage.places.counts import Counts
from affinity_search.storage.results.bounds import Crowded
from affinity_search.storage.results.export import Scored
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts, TrialScores, audited_after
from affinity_search.studies.metrics import METRICS, score_of
from affinity_search.studies.model.spec import StudySpec

BEST = 10
MOST_CLASSES, WORST = 20, 10  # classes in a trial's table; of more than that only the worst: a page sends all notes


def study_note(
    study: StoredStudy,
    counts: Counts,
    best: Sequence[Scored],
    bounds: Sequence[Crowded],
    verdicts: Sequence[Verdict],
    tests: Mapping[int, dict[str, Any]],
    more: Sequence[str] = (),
) -> str:
    """The note on a study: what is searched, how far it is, the best trials, test scores (`tested`), `more` lines on
    the search, bounds and diagnostics.
    """
    spec = study.spec
    lines = [
        f"**{spec.data.title}**, {_imbalance(spec)}, protocol **{spec.protocol}**",
        "",
        f"{counts.used} of {counts.total} places used: {counts.complete} complete, {counts.pruned} pruned, "
        f"{counts.failed} failed; {counts.running} running." + (f" {counts.closed} closed." if counts.closed else ""),
        "",
        *_definition(study),
        "",
    ]
    if best:
        lines += [
            f"| rank | trial | {spec.score.label} | minority F1 | majority F1 | parameters |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_row(spec, rank, one) for rank, one in enumerate(best, start=1)]
        lines += ["", _warning(spec.protocol), ""]
    lines += [_tested(trial, test) for trial, test in list(tests.items())[:BEST]]
    lines += [f"- {line}" for line in more]
    lines += [f"- {crowded.text}" for crowded in bounds]
    lines += [f"- {verdict.text}" for verdict in verdicts]
    return "\n".join(lines).strip() + "\n"


def trial_note(standing: Standing, trial: FrozenTrial) -> str:
    """The note on a trial: how far it came, why it ended, which trial went on, its scores, its classes, its
    diagnostics.
    """
    facts = TrialFacts.of(trial)
    if facts.place is None:  # somebody else's
        return ""
    scores = facts.scores
    head = _ended_with(scores, standing, trial) if scores else _ended_without(facts, facts.place, standing, trial)
    # Notes on pruned trials are short: a large study has many of them, and its page sends all notes.
    details = _details(scores, standing) if scores and trial.state != TrialState.PRUNED else []
    parts = [head, _whose(facts), *details, *_advice(standing, trial)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ended_with(scores: TrialScores, standing: Standing, trial: FrozenTrial) -> str:
    spec = standing.study.spec
    rank = standing.ranks.get(trial.number)
    place = f", rank {rank} of {len(standing.ranks)} with a score" if rank else ""
    state = trial.state.name.capitalize()
    epochs = f" after {scores.epochs} of {spec.trial_epochs} epochs" if trial.state == TrialState.PRUNED else ""
    after = audited_after(trial)
    audit = "" if after is None else f" The pruner would have stopped it after epoch {after}; it ran on as an audit."
    return (
        f"**{state}**{epochs}{place}: {spec.score.label} **{scores.metrics[spec.metric]:.4f}** ({spec.protocol}) at "
        f"epoch {scores.best_epoch}, micro F1 {scores.micro_f1:.4f}, minority {scores.minority_f1:.4f}, majority "
        f"{scores.majority_f1:.4f}.{_others(scores, spec.metric)}{audit}"
    )


def _others(scores: TrialScores, metric: str) -> str:
    """The metrics that the study does not go by, as far as the trial tells them."""
    told = [
        f"{METRICS[key].label} {value:.4f}" for key, value in scores.metrics.items() if key not in (metric, "accuracy")
    ]
    return f" Also {', '.join(told)}." if told else ""


def _ended_without(facts: TrialFacts, place: int, standing: Standing, trial: FrozenTrial) -> str:
    values = trial.intermediate_values
    scores = [values[epoch] for epoch in sorted(values)]
    spec = standing.study.spec
    so_far = f"after {len(scores)} of {spec.trial_epochs} epochs"
    best = f" Best {spec.score.label} until then: {score_of(scores[-1]):.4f}." if scores else ""
    if not trial.state.is_finished():
        return f"**Running**, {so_far}.{best}"
    told = facts.reason or "its worker ended without closing it"
    reason = f"`{' '.join(told.replace('`', chr(39)).split())}`"
    given_back = facts.cause == Cause.PREEMPTED
    kind = f"**Given back** {so_far}; this is no failure" if given_back else f"**Failed** {so_far}"
    return f"{kind}: {reason}.{best} {_goes_on(standing, trial.number, place)}"


def _goes_on(standing: Standing, number: int, place: int) -> str:
    later, state = standing.later.get(number), standing.states.get(place)
    if later is not None:
        return f"Trial {later} took up place {place} again."
    if state == PlaceState.FREE:
        return f"Place {place} is free: the next worker takes it up again."
    if state == PlaceState.CLOSED:
        return f"Place {place} is closed, as the search found nothing better any more."
    return f"A worker has place {place} now." if state == PlaceState.HELD else f"Place {place} is used up."


def _whose(facts: TrialFacts) -> str:
    spent = "" if facts.duration_s is None else f", {facts.duration_s:.1f} s"
    resumed = facts.resumed_epochs
    before = f" It went on after {resumed} epochs of an earlier attempt." if resumed else ""
    return (
        f"Place {facts.place}, attempt {facts.attempt}, seed {facts.seed}{spent} on {facts.device} by "
        f"`{facts.worker}`.{before}"
    )


def _details(scores: TrialScores, standing: Standing) -> list[str]:
    data = standing.study.spec.data
    minority = imbalance_of(data.source, data.minority).minority
    classes = list(zip(data.source.classes, minority, scores.support, scores.per_class_f1, strict=True))
    worst = sorted(classes, key=lambda one: one[-1])[:WORST]
    many = len(classes) > MOST_CLASSES
    table = ["| class | | images scored | F1 |", "|---|---|---|---|"]
    table += [
        f"| {name} | {'minority' if small else 'majority'} | {support} | {f1:.4f} |"
        for name, small, support, f1 in (worst if many else classes)
    ]
    told = [f"Of {len(classes)} classes the {WORST} with the lowest F1:"] if many else []
    return [*told, "\n".join(table), _diagnosed(scores)]


def _advice(standing: Standing, trial: FrozenTrial) -> list[str]:
    return [f"- {verdict.text}" for verdict in standing.verdicts if trial.number in verdict.concerns]


def _diagnosed(scores: TrialScores) -> str:
    told = diagnosed(scores)
    return told.text if told else ""


def _tested(trial: int, test: Mapping[str, Any]) -> str:
    opened = datetime.fromtimestamp(test["opened_at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"- **test set**, trial {trial}: macro F1 **{test['macro_f1_mean']:.4f}**, mean of {len(test['seeds'])} "
        f"retrainings ({test['macro_f1_least']:.4f} to {test['macro_f1_greatest']:.4f}), opened {opened} by "
        f"`{test['opened_by']}`"
    )


def _definition(study: StoredStudy) -> list[str]:
    spec = study.spec
    network, training = spec.network, spec.training
    space = spec.space.items() if spec.space else []
    rate = "rate searched" if training.learning_rate is None else f"rate {training.learning_rate:g}"
    return [
        f"- network: {network.kind}, widths {list(network.widths)}, depth {network.depth}, {network.head} head",
        f"- training: {training.epochs} epochs{_times(spec)}, batch {training.batch}, {rate}, "
        f"{'with' if training.augment else 'without'} augmentation, {study.precision or training.precision}",
        f"- sampler {spec.sampler.kind}, pruner {spec.pruner.kind}, fingerprint `{study.fingerprint[:12]}`",
        *([f"- ends when it is flat: {spec.stop.text}"] if spec.stop else []),
        *(f"- {name}: {parameter.describe()}" for name, parameter in space),
    ]


def _times(spec: StudySpec) -> str:
    return "" if spec.data.runs == 1 else f" (a trial trains {spec.data.runs} times, with other validation images)"


def _imbalance(spec: StudySpec) -> str:
    data = spec.data
    counted = "training" if data.own else "test"
    return data.imbalance_text + (f" {counted} images per minority class" if data.minority is not None else "")


def _row(spec: StudySpec, rank: int, one: Scored) -> str:
    shown = ", ".join(f"{name} {value:.4g}" for name, value in one.place.params.items()) or spec.head.name
    scores = one.scores
    told = " | ".join(f"{score:.4f}" for score in (scores.metrics[spec.metric], scores.minority_f1, scores.majority_f1))
    return f"| {rank} | {one.trial.number} | {told} | {shown} |"


def _warning(protocol: str) -> str:
    if protocol == "article":
        return "Scored on the test images, as in the article: these numbers are too high."
    return (
        "Scored on validation images and the best of many, so too high: quote the scores of `affinity-search evaluate`."
    )
