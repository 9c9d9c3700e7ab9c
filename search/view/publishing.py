"""Keeps the note and the figures of a study in the database up to date, in a thread beside the search."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial

from affinity_search.search.view.notes import BEST, study_note
from affinity_search.search.view.snapshot import lines_on
from affinity_search.search.view.standing import verdicts
from affinity_search.storage.database.patience import at_once, is_transient
from affinity_search.storage.database.runtime import Background
from affinity_search.storage.errors import NothingToExportError, VanishedError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.closing import closing_of
from affinity_search.storage.places.counts import Counts
from affinity_search.storage.results.bounds import crowded_bounds
from affinity_search.storage.results.evaluations import tested
from affinity_search.storage.results.export import best_trials
from affinity_search.storage.study import StoredStudy

EVERY_S = 15.0


def note_of(study: StoredStudy, counts: Counts, trials: Sequence[FrozenTrial]) -> str:
    """The study's note as of now."""
    best: list[Any] = []
    with contextlib.suppress(NothingToExportError):
        best = best_trials(study, BEST)
    judged = verdicts(trials, study.spec.metric)
    closing = closing_of(study) if counts.closed else None
    more = [*([closing.text(study.name)] if closing else []), *lines_on(study)]
    return study_note(study, counts, best, crowded_bounds(study), judged, tested(study), more)


def write_note(study: StoredStudy) -> None:
    """Write the note again: for commands that change what it says and run no search."""
    from optuna_dashboard import save_note

    note = note_of(study, Places.of(study).counts(), study.optuna.get_trials(deepcopy=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        save_note(study.optuna, note)


class Reporter:
    """Writes what has changed since its last look. If several run, the last one wins."""

    def __init__(self, study: StoredStudy) -> None:
        self._study = study
        self._written: dict[str, str] = {}
        self._seen: tuple[int, int, int] | None = None

    def write(self) -> bool:
        """Returns whether there was anything new."""
        study = self._study = self._study.refreshed()
        counts = Places.of(study).counts()
        trials = study.optuna.get_trials(deepcopy=False)
        # A place is used a moment before its trial ends.
        seen = counts.used, counts.closed, sum(trial.state.is_finished() for trial in trials)
        if seen == self._seen:
            return False
        note = note_of(study, counts, trials)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._note(note)
            self._figures(trials)
        self._seen = seen
        return True

    def _note(self, text: str) -> None:
        from optuna_dashboard import save_note

        if self._written.get("note") != text:
            save_note(self._study.optuna, text)
            self._written["note"] = text

    def _figures(self, trials: Sequence[FrozenTrial]) -> None:
        from optuna_dashboard import save_plotly_graph_object

        from affinity_search.search.view.figures.study import About, figures, points_of

        spec = self._study.spec
        log = [
            name for name, parameter in (spec.space.items() if spec.space else []) if getattr(parameter, "log", False)
        ]
        about = About(spec.protocol, spec.head, log, spec.score.label)
        made = figures(points_of(trials, spec.metric), about)
        for name, figure in made.items():
            text = figure.to_json()
            if self._written.get(name) != text:
                save_plotly_graph_object(self._study.optuna, figure, graph_object_id=name)
                self._written[name] = text


class ReportingThread(Background):
    """Within its context a thread writes every `every_s`, and once more at the end."""

    def __init__(self, study: StoredStudy, say: Callable[[str], None], every_s: float = EVERY_S) -> None:
        super().__init__("reporting")
        self._reporter = Reporter(study)
        self._say = say
        self._every_s = every_s
        self._told = False

    def _run(self) -> None:
        while not self._done.wait(self._every_s):
            self._write()
        self._write()

    def _write(self) -> None:
        try:
            with at_once():
                self._reporter.write()
        except VanishedError:
            raise
        except Exception as error:
            if not (is_transient(error) or self._told):
                self._say(f"the dashboard's notes and figures could not be written ({error}); this is told once")
                self._told = True
