"""The Optuna trial of an attempt, as its holder writes it: reports, attributes, its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from affinity_search.storage.errors import LostPlaceError
from affinity_search.storage.places.recovery import end_by_id
from affinity_search.storage.study import StoredStudy


class TrialRecord:
    """Raises LostPlaceError where somebody else has ended the trial: this worker's lease had ended."""

    def __init__(self, study: StoredStudy, trial_id: int) -> None:
        """`trial_id` is its id in the storage, not its number."""
        self.id = trial_id
        self.trial = optuna.Trial(study.optuna, trial_id)

    @property
    def number(self) -> int:
        """What people call it."""
        return self.trial.number

    @property
    def storage(self) -> BaseStorage:
        """Where it is."""
        return self.trial.storage

    def report(self, value: float, epoch: int) -> None:
        """An epoch's value."""
        with self._unless_ended():
            self.trial.report(value, epoch)

    def describe(self, **attributes: Any) -> None:
        """Set user attributes; each is a transaction."""
        with self._unless_ended():
            for key, value in attributes.items():
                self.trial.set_user_attr(key, value)

    def end(self, state: TrialState, value: float | None = None) -> None:
        """End the trial; nothing happens if somebody has ended it already, or deleted the study.

        As `study.tell`, which would read the trial twice for it; our samplers do nothing after a trial.
        """
        end_by_id(self.storage, self.id, state, value)

    @contextlib.contextmanager
    def _unless_ended(self) -> Iterator[None]:
        try:
            yield
        except UpdateFinishedTrialError:
            raise LostPlaceError(
                f"trial {self.number} was ended by others, as this worker was not heard of; it is dropped"
            ) from None
