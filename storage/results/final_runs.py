"""Reads final runs: a search's best settings, trained again on fresh draws and scored on the test images.

They are the places of a sibling study, so that they do not teach the sampler. `stored/planning.py` plans them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.place import Place
from affinity_search.storage.study import StoredStudy, study_by
from affinity_search.storage.trials.facts import opener_of, told_scores
from affinity_search.storage.trials.seeds import draw_seed
from affinity_search.studies.model.parameters import Params


def final_study(search: StoredStudy) -> StoredStudy | None:
    """The study of the search's final runs; None before any was planned."""
    found = study_by(search.backend, search=search.token)
    return found[0] if found else None


@dataclass(frozen=True)
class FinalRun:
    """One planned training of a search's trial on one draw, and what has become of it."""

    trial: int  # of the search
    draw: int  # from 1
    params: Params
    place: Place
    scores: Mapping[str, Any] | None  # on the test images, with `best_epoch`; None before its end
    seed: int
    opened_by: str | None  # user@host of the process that opened the test images for it


@dataclass(frozen=True)
class FinalRuns:
    """All final runs of one search at one moment, by place."""

    search: StoredStudy
    study: StoredStudy | None
    runs: tuple[FinalRun, ...] = ()

    @classmethod
    def of(cls, search: StoredStudy) -> Self:
        """Read them. Without a study of final runs there are none."""
        study = final_study(search)
        if study is None:
            return cls(search, None)
        trials = {trial.number: trial for trial in study.optuna.get_trials(deepcopy=False)}
        runs = []
        for place in Places.of(study).rows():
            trial = None if place.trial is None else trials.get(place.trial)
            scores = told_scores(trial) if trial and place.state == PlaceState.COMPLETE else None
            assert place.source is not None, "planned with its trial"
            assert place.draw is not None, "planned with its draw"
            by = opener_of(trial) if trial else None
            seed = draw_seed(search.spec.seed, place.draw)
            runs.append(FinalRun(place.source, place.draw, place.params or {}, place, scores, seed, by))
        return cls(search, study, tuple(runs))

    @cached_property
    def scores(self) -> dict[int, dict[int, Mapping[str, Any]]]:
        """By the search's trial and by draw: the scores of the runs that have ended with some."""
        found: dict[int, dict[int, Mapping[str, Any]]] = {}
        for run in sorted(self.runs, key=lambda run: (run.trial, run.draw)):
            if run.scores is not None:
                found.setdefault(run.trial, {})[run.draw] = run.scores
        return found

    def of_trial(self, trial: int) -> list[FinalRun]:
        """Those of one of the search's trials, by draw."""
        return sorted((run for run in self.runs if run.trial == trial), key=lambda run: run.draw)
