"""The only writer of an attempt's Optuna trial after `proposing` made it: reports, attributes, its end.

The holder writes with `TrialRecord`. A process that finds a trial without a holder ends it with `end_trial`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from affinity_search.storage.errors import LostPlaceError
from affinity_search.storage.study import TOKEN_ATTRIBUTE, StoredStudy
from affinity_search.storage.trials.facts import SCORES


class TrialRecord:
    """Raises LostPlaceError if others have ended the trial because this worker's lease was over."""

    def __init__(self, study: StoredStudy, trial_id: int) -> None:
        """`trial_id` is its id in the storage, not its number."""
        self.id = trial_id
        self.trial = optuna.Trial(study.optuna, trial_id)

    @property
    def number(self) -> int:
        """What people call it."""
        return self.trial.number

    def report(self, value: float, epoch: int) -> None:
        """An epoch's value."""
        with self._unless_ended():
            self.trial.report(value, epoch)

    def tell_share(self, share: float) -> None:
        """Record how much of the first epoch is done, from 0 to 1."""
        self._describe(first_epoch=round(share, 3))

    def tell_resumed(self, epochs: int) -> None:
        """Record how many epochs an earlier attempt has trained."""
        self._describe(resumed_epochs=epochs)

    def tell_audited(self, epochs: int) -> None:
        """Record that the pruner would have stopped the trial after so many epochs. It runs on as an audit."""
        self._describe(audited_after=epochs)

    def tell_scores(
        self, scores: Mapping[str, Any], *, best_epoch: int, epochs: int, duration_s: float, diagnostics: Any = None
    ) -> None:
        """Record the metrics of the best epoch as `TrialScores` reads them. Epochs count from 1; `diagnostics` is ready
        for JSON.
        """
        counted = {"best_epoch": best_epoch, "epochs": epochs, "duration_s": duration_s}
        told = {} if diagnostics is None else {"diagnostics": diagnostics}
        self._describe(**{SCORES: counted | dict(scores) | told})

    def tell_failure(self, cause: str, reason: str, duration_s: float, card: str | None = None) -> None:
        """Record why the trial ends without a value. `card` is the GPU on which it failed."""
        self._describe(cause=str(cause), reason=reason, duration_s=duration_s, **({"card": card} if card else {}))

    def end(self, state: TrialState, value: float | None = None) -> None:
        """End the trial. Does nothing if it was ended already, or if the study was deleted.

        As `study.tell`, which would read the trial twice. Our samplers do nothing after a trial.
        """
        with contextlib.suppress(*OVER):
            self.trial.storage.set_trial_state_values(self.id, state, _values(value))

    def _describe(self, **attributes: Any) -> None:
        """Each attribute is a transaction. A finished trial takes none."""
        with self._unless_ended():
            for key, value in attributes.items():
                self.trial.set_user_attr(key, value)

    @contextlib.contextmanager
    def _unless_ended(self) -> Iterator[None]:
        try:
            yield
        except UpdateFinishedTrialError:
            raise LostPlaceError(
                f"others ended trial {self.number} because this worker was silent for too long; it is dropped"
            ) from None


# Optuna's answers for a trial that has ended, and for one that is not there.
OVER = (UpdateFinishedTrialError, KeyError)


def end_trial(
    study: StoredStudy, number: int, state: TrialState, value: float | None = None, reason: str | None = None
) -> None:
    """Tell Optuna how a trial ended. Does nothing if it was told already, or if the study was deleted.

    A `reason` is kept with a trial that failed.
    """
    with contextlib.suppress(*OVER):
        if reason is not None and state == TrialState.FAIL:
            describe_trial(study, number, reason=reason)
        study.backend.optuna.set_trial_state_values(_id_of(study, number), state, _values(value))


def describe_trial(study: StoredStudy, number: int, **attributes: Any) -> None:
    """Set attributes of a trial, which may be another process's.

    Raises:
        KeyError: there is no such trial, or the study was deleted.
        optuna.exceptions.UpdateFinishedTrialError: the trial is over.
    """
    trial_id = _id_of(study, number)
    for key, value in attributes.items():
        study.backend.optuna.set_trial_user_attr(trial_id, key, value)


def _id_of(study: StoredStudy, number: int) -> int:
    """A trial's id in the storage. Not by the study's name, which may have changed."""
    storage, study_id = study.backend.optuna, study.optuna._study_id
    # SQLite uses the ids of deleted studies again.
    if storage.get_study_user_attrs(study_id).get(TOKEN_ATTRIBUTE) != study.token:
        raise KeyError(f"study {study.name!r} is another one now")
    return int(storage.get_trial_id_from_study_id_trial_number(study_id, number))


def _values(value: float | None) -> list[float] | None:
    return None if value is None else [value]
