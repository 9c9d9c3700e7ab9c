"""Final runs of a search: its best trials trained again on fresh draws, and judged on the test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from affinity_search.search.experiments.statistics import Interval, interval, tied_with_best
from affinity_search.storage.results.evaluations import latest_test
from affinity_search.storage.results.export import Scored, best_trials, refuse_final
from affinity_search.storage.results.final_runs import FinalRuns
from affinity_search.storage.stored.planning import plan_final_runs
from affinity_search.storage.study import StoredStudy
from affinity_search.studies.metrics import score_of


@dataclass(frozen=True)
class Plan:
    """Which trials are judged on how many draws, and how many trainings of these are still to be done."""

    search: StoredStudy
    chosen: list[Scored]  # the best first
    draws: int
    trainings: int  # still to be done
    failed: int = 0  # ended without a score, and used up

    @property
    def trials(self) -> list[int]:
        """Their numbers."""
        return [one.trial.number for one in self.chosen]

    def made(self) -> StoredStudy:
        """The study of final runs with a place for each training of the plan.

        Raises:
            StorageError: the search has not settled its precision yet.
        """
        return plan_final_runs(self.search, {one.trial.number: one.place.params for one in self.chosen}, self.draws)


def plan(search: StoredStudy, *, top: int, draws: int) -> Plan:
    """A plan for the `top` best trials on draws 1 … `draws`. What was trained earlier is not trained again.

    Raises:
        NothingToExportError: no trial has finished.
    """
    refuse_final(search)
    chosen = best_trials(search, top)
    asked = {(one.trial.number, draw) for one in chosen for draw in range(1, draws + 1)}
    done = FinalRuns.of(search)
    used = {(run.trial, run.draw): run for run in done.runs if run.place.is_used}
    failed = [key for key in asked & used.keys() if used[key].scores is None]
    return Plan(search, chosen, draws, len(asked - used.keys()), len(failed))


def results(planned: Plan) -> list[dict[str, Any]]:
    """The planned trials with their test scores, ranked by the mean of the study's metric, the best first.

    Returns:
        For each trial: `trial`, `protocol`, `params`, `macro_f1` and `search` (both of the search), `test` as in the
        export over the planned draws (None without any), `interval` (95 %, of the mean of the study's metric), and
        `tied` as in `ties`.
    """
    search, runs = planned.search, FinalRuns.of(planned.search)
    metric = search.spec.metric
    scores = {
        number: {draw: told[metric] for draw, told in runs.scores.get(number, {}).items() if draw <= planned.draws}
        for number in planned.trials
    }
    tied = ties(scores)
    found = [
        {
            "trial": one.trial.number,
            "protocol": search.spec.protocol,
            "params": one.place.params,
            "macro_f1": one.scores.macro_f1,
            "search": score_of(one.place.value),
            "test": latest_test(search, one.trial.number, planned.draws),
            "interval": _interval(scores[one.trial.number]),
            "tied": tied.get(one.trial.number),
        }
        for one in planned.chosen
    ]
    return sorted(found, key=lambda one: -one["interval"].mean if one["interval"] else 0.0)


def ties(scores: Mapping[int, Mapping[int, float]]) -> dict[int, bool | None]:
    """Of each judged trial, whether it is tied with the best, as `tied_with_best` says; None with too few draws."""
    judged = {str(number): told for number, told in scores.items() if told}
    return {int(one.contender): one.tied for one in tied_with_best(judged)} if judged else {}


def contenders(search: StoredStudy) -> list[dict[str, Any]]:
    """Every trial with final runs for the export, ranked by its mean, the best first; empty before any has a score."""
    runs = FinalRuns.of(search)
    spec = search.spec
    scores = {
        trial: {draw: float(told[spec.metric]) for draw, told in by_draw.items()}
        for trial, by_draw in runs.scores.items()
    }
    params, tied = {run.trial: run.params for run in runs.runs}, ties(scores)
    found = []
    for trial, told in scores.items():
        over = interval(list(told.values()))
        ends: dict[str, Any] = {key: getattr(over, key) if len(told) > 1 else None for key in ("low", "high")}
        typed = spec.space.typed(params[trial]) if spec.space else None
        known: dict[str, Any] = {
            "trial": trial,
            "params": typed,
            "draws": len(told),
            "mean": over.mean,
            "tied": tied.get(trial),
        }
        found.append(known | ends)
    return sorted(found, key=lambda one: -one["mean"])


def _interval(scores: Mapping[int, float]) -> Interval | None:
    return interval(list(scores.values())) if scores else None
