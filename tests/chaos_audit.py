"""What must hold after any disaster: N places used, none twice, nothing running, and every value reproducible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from affinity_search.search.experiments.compare import results
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.database.tables import SCORED, PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.place import Place
from affinity_search.storage.results.final_runs import FinalRuns
from affinity_search.storage.stored.comparisons import StoredComparison
from affinity_search.storage.study import StoredStudy, study_by
from affinity_search.storage.trials.facts import TrialFacts, place_of
from affinity_search.storage.trials.seeds import trial_seed


@dataclass(frozen=True)
class Audit:
    """What was found; `wrong` is empty if nothing was lost or counted twice."""

    places: int
    pruned: int
    attempts: int
    lost: int
    duplicated: int
    trained: int  # epochs that were trained, reported or not
    twice: int  # of these, more than a search without disasters trains
    resumed: int  # attempts that went on from a checkpoint
    retrained: int  # places whose every epoch's score equals a retraining's, bit for bit
    wrong: tuple[str, ...]


def audit(study: StoredStudy) -> Audit:
    """Compare the places, Optuna's trials, and a retraining of every place in this process."""
    rows, trials = Places.of(study).rows(), study.optuna.get_trials(deepcopy=False)
    by_number = {trial.number: trial for trial in trials}
    ended = Counter(place_of(trial) for trial in trials if trial.state in ENDED)
    wrong = [*_wrong_rows(rows, trials), *_wrong_trials(trials, rows)]
    differing = _differing(study, rows, by_number)
    trained = trained_epochs(trials)
    needed = sum(len(by_number[row.trial].intermediate_values) for row in rows if row.trial in by_number)
    return Audit(
        places=len(rows),
        pruned=sum(row.state == PlaceState.PRUNED for row in rows),
        attempts=len(trials),
        lost=sum(not ended[row.number] for row in rows),
        duplicated=sum(count > 1 for count in ended.values()),
        trained=trained,
        twice=trained - needed,
        resumed=sum(TrialFacts.of(trial).resumed_epochs is not None for trial in trials),
        retrained=len(rows) - len(differing),
        wrong=(*wrong, *differing),
    )


ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def halves(study: StoredStudy) -> list[str]:
    """What no launch that has used every place may leave: RUNNING trials, and places that differ from their trials."""
    trials = study.optuna.get_trials(deepcopy=False)
    running = [f"trial {trial.number} is RUNNING" for trial in trials if trial.state == TrialState.RUNNING]
    return running + _wrong_rows(Places.of(study).rows(), trials)


def trained_epochs(trials: list[FrozenTrial]) -> int:
    """Epochs that were trained, as far as anything is known of them.

    A worker that was killed between an epoch's checkpoint and its report trained it, although it never said so: the
    attempt that goes on from there shows it.
    """
    trained, known = 0, Counter[int]()  # known: epochs of each place that some attempt has trained
    for trial in sorted(trials, key=lambda trial: trial.number):
        facts = TrialFacts.of(trial)
        place, resumed = -1 if facts.place is None else facts.place, facts.resumed_epochs or 0
        trained += max(0, resumed - known[place]) + max(0, len(trial.intermediate_values) - resumed)
        known[place] = max(known[place], resumed, len(trial.intermediate_values))
    return trained


def _wrong_rows(rows: list[Place], trials: list[FrozenTrial]) -> list[str]:
    """Every place is used, and has exactly one finished trial, which ended as the place did and with its value."""
    by_number = {trial.number: trial for trial in trials}
    ended = Counter(place_of(trial) for trial in trials if trial.state in ENDED)
    wrong = []
    for row in rows:
        trial = by_number.get(row.trial)
        if row.state not in SCORED:
            wrong.append(f"place {row.number} is {row.state}: {row.reason}")
        elif trial is None or trial.state.name.lower() != row.state or trial.value != row.value:
            wrong.append(f"place {row.number} and its trial {row.trial} disagree")
        elif ended[row.number] != 1:
            wrong.append(f"place {row.number} has {ended[row.number]} finished trials")
    return wrong


def _wrong_trials(trials: list[FrozenTrial], rows: list[Place]) -> list[str]:
    """Every attempt is the one that counts, or failed for a reason that is told, and belongs to its place."""
    counted = {row.trial for row in rows}
    attempts = {row.number: row.attempt for row in rows}
    params = {row.number: row.params for row in rows}
    wrong = []
    for trial in trials:
        place = place_of(trial)
        if trial.state not in (*ENDED, TrialState.FAIL):
            wrong.append(f"trial {trial.number} is {trial.state.name}")
        elif trial.state in ENDED and trial.number not in counted:
            wrong.append(f"trial {trial.number} is {trial.state.name}, but place {place} counts another")
        elif trial.state == TrialState.FAIL and TrialFacts.of(trial).reason is None:
            wrong.append(f"trial {trial.number} failed without a reason")
        attempt = TrialFacts.of(trial).attempt or 1  # its worker may have died between writing the two
        if place is not None and not 1 <= attempt <= max(1, attempts[place]):
            wrong.append(f"trial {trial.number} is attempt {attempt} of {attempts[place]}")
        # One that was killed before its place knew of it has trained nothing: the next attempt asks the sampler anew.
        if place is not None and trial.intermediate_values and trial.params != params[place]:
            wrong.append(f"trial {trial.number} trained other parameters than place {place} has")
    return wrong


def _differing(study: StoredStudy, rows: list[Place], trials: dict[int, FrozenTrial]) -> list[str]:
    """Places that do not have, bit for bit, the scores of a training without any disaster."""
    from affinity_search.search import devices

    device = devices.configure("cpu", 1)
    trainer = StudyTrainer(device, study.spec, study.settled_precision, None)
    space = study.spec.space
    wrong = []
    for row in rows:
        if row.state not in SCORED or row.trial not in trials:
            continue
        seed = trial_seed(study.spec.seed, row.number)
        again = list(trainer.epochs(row.params, seed, max_centers=space.max_centers if space else None))
        told = dict(sorted(trials[row.trial].intermediate_values.items()))  # PostgreSQL gives rows in any order
        best = list(accumulate((1.0 - epoch.scores.macro_f1 for epoch in again), min))[: len(told)]
        if row.value != best[-1] or list(told.values()) != best:
            wrong.append(f"place {row.number}: value {row.value}, but a retraining gives {best[-1]}: {told} and {best}")
    return wrong


@dataclass(frozen=True)
class ComparedAudit:
    """What was found of a comparison; `wrong` is empty if it is whole and equal to the undisturbed one."""

    places: int
    attempts: int
    resumed: int
    trained: int
    twice: int
    compared: int  # things that the undisturbed comparison told: scores, settings, verdicts
    equal: int
    wrong: tuple[str, ...]


def audit_comparison(comparison: StoredComparison, undisturbed: Mapping[str, Any]) -> ComparedAudit:
    """Look at every study of it, and compare what it tells with what `told_by` said of the undisturbed one."""
    wrong: list[str] = []
    rows = trials = trained = needed = resumed = 0
    for study in comparison.studies:
        own, attempts = Places.of(study).rows(), study.optuna.get_trials(deepcopy=False)
        wrong += [f"{study.name}: {line}" for line in (*_wrong_rows(own, attempts), *_wrong_trials(attempts, own))]
        rows, trials, trained = rows + len(own), trials + len(attempts), trained + trained_epochs(attempts)
        resumed += sum(TrialFacts.of(trial).resumed_epochs is not None for trial in attempts)
        counted = {row.trial for row in own}
        needed += sum(len(trial.intermediate_values) for trial in attempts if trial.number in counted)
    for part in comparison.parts():
        finals = study_by(comparison.backend, search=part.search.token)
        planned = [(run.trial, run.draw) for run in FinalRuns.of(part.search).runs]
        wrong += wrong_plan(part.search.name, [each.name for each in finals], planned, comparison.spec.draws)
    differing = differences(undisturbed, told_by(comparison))
    return ComparedAudit(
        places=rows,
        attempts=trials,
        resumed=resumed,
        trained=trained,
        twice=trained - needed,
        compared=len(undisturbed),
        equal=len(undisturbed) - sum(key in undisturbed for key in differing),
        wrong=(*wrong, *differing.values()),
    )


def wrong_plan(search: str, studies: Sequence[str], planned: Iterable[tuple[int, int]], draws: int) -> list[str]:
    """A search has one study of final runs, and in it each draw once, all of the same trial."""
    wrong = []
    if len(studies) != 1:
        wrong.append(f"{search} has {len(studies)} studies of final runs: {', '.join(studies)}")
    planned = list(planned)
    if sorted(draw for _, draw in planned) != list(range(1, draws + 1)):
        wrong.append(f"{search} has final runs on draws {sorted(draw for _, draw in planned)}, not on 1 to {draws}")
    trials = sorted({trial for trial, _ in planned})
    if len(trials) > 1:
        wrong.append(f"{search} has final runs of trials {trials}")
    return wrong


def told_by(comparison: StoredComparison) -> dict[str, Any]:
    """What a comparison says that no order of events may change: values, settings, scores, intervals and verdicts."""
    found = results(comparison)
    told: dict[str, Any] = {"finished": found.finished}
    for level in found.levels:
        told["verdict"] = level.verdict
        for one in level.contestants:
            told[f"{one.contestant}: settings"] = one.params
            told[f"{one.contestant}: best value"] = one.search.best
            told[f"{one.contestant}: mean scores"] = one.means
            told[f"{one.contestant}: interval"] = one.interval and one.interval.model_dump()
            told[f"{one.contestant}: verdict"] = one.verdict and one.verdict.model_dump()
    for part in comparison.parts():
        for row in Places.of(part.search).rows():
            told[f"{part.entry.contestant}: place {row.number}"] = (row.params, row.value)
        for run in FinalRuns.of(part.search).runs:
            scores = {key: value for key, value in (run.scores or {}).items() if key != "duration_s"}
            told[f"{part.entry.contestant}: draw {run.draw}"] = (run.params, run.seed, run.place.value, scores)
    return told


def differences(undisturbed: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, str]:
    """By what differs: a line about it."""
    keys = dict.fromkeys([*undisturbed, *told])
    return {
        key: f"{key} is {told.get(key)}, undisturbed it is {undisturbed.get(key)}"
        for key in keys
        if told.get(key) != undisturbed.get(key)
    }
