"""How the trials of one study stand to each other: ranks, attempts at the same place, what their diagnostics say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from search.advice import Verdict, verdicts
from storage.attributes import MADE_BY
from storage.places import Places
from storage.study import StoredStudy
from storage.tables import PlaceState


@dataclass(frozen=True)
class Standing:
    """Of one moment; trials and places by their numbers."""

    study: StoredStudy
    ranks: Mapping[int, int]  # of the trials that have a value: the places' rows decide
    later: Mapping[int, int]  # trial: the next attempt at its place
    states: Mapping[int, str]  # place: its state
    judged: int  # how many trials had a value when the verdicts were found
    verdicts: Sequence[Verdict]


def standing_of(study: StoredStudy, trials: Sequence[FrozenTrial], before: Standing | None = None) -> Standing:
    """Read the places' rows and compare; verdicts of `before` are kept until the study has grown by a twentieth."""
    outcomes = Places.of(study).outcomes()
    valued = sorted((one.value, one.trial) for one in outcomes if one.value is not None and one.trial is not None)
    ranks = {trial: rank for rank, (_, trial) in enumerate(valued, start=1)}
    states: dict[int, str] = {one.number: PlaceState(one.state) for one in outcomes}
    if before is None or len(ranks) > 1.05 * before.judged:
        judged = len(ranks), verdicts(trials)
    else:
        judged = before.judged, list(before.verdicts)
    return Standing(study, ranks, _later(trials), states, *judged)


def _later(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    found: dict[int, int] = {}
    last: dict[int, int] = {}
    for trial in trials:
        place = trial.user_attrs.get(MADE_BY, {}).get("place")
        if place in last:
            found[last[place]] = trial.number
        if place is not None:
            last[place] = trial.number
    return found
