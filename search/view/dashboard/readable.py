"""What the dashboard's page shows of each trial: a note and short attributes. They are made when the page asks for
them.

The database keeps related facts in one attribute. The page would show that as a line of JSON. Notes on trials would
have to be attributes of the study, and optuna-dashboard reads and searches all of those for each trial. So a plugin of
Bottle puts both into the answer, before it becomes JSON.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from affinity_search.search.view.notes import trial_note
from affinity_search.search.view.standing import Standing, standing_of
from affinity_search.storage.study import TOKEN_ATTRIBUTE, find_study
from affinity_search.storage.trials.facts import KEPT_TOGETHER, TrialFacts
from affinity_search.studies.metrics import METRICS

if TYPE_CHECKING:
    from affinity_search.storage.trials.reading import ReadingStorage

STUDY = "/api/studies/<study_id:int>"
# In the order in which the page shows them.
NUMBERS = (*METRICS, "minority_f1", "majority_f1", "best_epoch", "epochs", "duration_s", "place", "attempt", "seed")
TEXTS = ("worker", "device")
# The page draws every curve that it gets, and thousands keep a browser busy for minutes. So of a large study only the
# best are sent.
MOST_CURVES = 300
TRIALS_A_SECOND = 500  # how long a reading of a study is used: ten seconds for 5,000 trials
EARLIER_NOTES = "**Rank "  # earlier versions stored notes on the best trials; they are out of date


class Readable:
    """Bottle calls `apply` for every route of optuna-dashboard; only the one with a study's trials is changed."""

    name = "readable"
    api = 2

    def __init__(self, storage: ReadingStorage) -> None:
        self._storage = storage
        self._seen: dict[str, _Look] = {}

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        if (route.rule, route.method) != (STUDY, "GET"):
            return callback

        def readable(study_id: int) -> Any:
            answer = callback(study_id=study_id)
            if isinstance(answer, dict) and "trials" in answer:
                self._mend(study_id, answer)
            return answer

        return readable

    def _mend(self, study_id: int, answer: dict[str, Any]) -> None:
        token = next((one["value"] for one in answer["user_attrs"] if one["key"] == TOKEN_ATTRIBUTE), None)
        if token is None:  # another program's
            return
        shown = [*answer["trials"], *answer["best_trials"]]
        seen = self._seen.get(token)
        if seen is None or not seen.holds_for(shown):
            seen = self._look(study_id, answer["name"], seen)
            if seen is None:
                return
            self._seen[token] = seen
        answer["union_user_attrs"] = _columns(answer["union_user_attrs"])
        for one in shown:
            if one["number"] < len(seen.trials):
                _show(one, seen.trials[one["number"]], seen.standing)

    def _look(self, study_id: int, name: str, before: _Look | None) -> _Look | None:
        """None for a deleted study."""
        trials = self._storage.get_all_trials(study_id, deepcopy=False)
        until = time.monotonic() + len(trials) / TRIALS_A_SECOND
        if before is not None and before.mark == _mark(trials):
            return replace(before, trials=trials, until=until)
        study = before.standing.study if before else find_study(self._storage.database, name)
        if study is None:
            return None
        return _Look(trials, standing_of(study, trials, before.standing if before else None), until)


@dataclass(frozen=True)
class _Look:
    """A study's trials at one moment, and how they stand."""

    trials: Sequence[FrozenTrial]
    standing: Standing
    until: float

    @property
    def mark(self) -> tuple[int, int]:
        """If this is the same, the standing is too."""
        return _mark(self.trials)

    def holds_for(self, shown: Sequence[dict[str, Any]]) -> bool:
        """Whether it is young enough, and no shown trial has begun or ended since."""
        states = {trial["number"]: trial["state"] for trial in shown}
        return time.monotonic() < self.until and all(
            number < len(self.trials) and self.trials[number].state.name.capitalize() == state
            for number, state in states.items()
        )


def _mark(trials: Sequence[FrozenTrial]) -> tuple[int, int]:
    return len(trials), sum(trial.state.is_finished() for trial in trials)


def _show(shown: dict[str, Any], trial: FrozenTrial, standing: Standing) -> None:
    """`shown` is optuna-dashboard's answer for the trial."""
    shown["user_attrs"] = [{"key": key, "value": value} for key, value in short_attributes(trial).items()]
    if "values" in shown:  # shown in large type; infinity is a word
        shown["values"] = [round(value, 6) if isinstance(value, float) else value for value in shown["values"]]
    if trial.state.is_finished() and standing.ranks.get(trial.number, MOST_CURVES + 1) > MOST_CURVES < len(
        standing.ranks
    ):
        shown["intermediate_values"] = []
    for score in shown["intermediate_values"]:
        score["step"] += 1  # people count epochs from 1
    note = shown["note"]
    if not note["body"] or note["body"].startswith(EARLIER_NOTES):
        with contextlib.suppress(KeyError, TypeError, ValueError):  # attributes that others have written
            note["body"] = trial_note(standing, trial)


def short_attributes(trial: FrozenTrial) -> dict[str, str]:
    """A trial's user attributes as people read them, one number or a few words each."""
    facts = TrialFacts.of(trial)
    told = vars(facts) | (vars(facts.scores) if facts.scores else {})
    shown = {name: _short(told[name]) for name in (*NUMBERS, *TEXTS) if told.get(name) is not None}
    versions = facts.versions or {}
    shown |= {"versions": ", ".join(f"{name} {version}" for name, version in versions.items())} if versions else {}
    return shown | {
        key: _short(value) for key, value in trial.user_attrs.items() if key not in (*KEPT_TOGETHER, *shown)
    }


def _short(value: Any) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _columns(stored: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The names of the attributes of all trials, and which of them are numbers."""
    kept = [one for one in stored if one["key"] not in KEPT_TOGETHER]
    ours = len(kept) < len(stored)
    names = {one["key"] for one in kept}
    more = [(name, True) for name in NUMBERS] + [(name, False) for name in TEXTS]
    return [{"key": name, "sortable": number} for name, number in more if ours and name not in names] + kept
