"""A trial that is drafted in memory and stored as a whole.

In Optuna, `ask`, every `suggest` and every attribute are one transaction each. Besides reports they are most of an
attempt's requests. Within `drafting` they write to a draft in memory. Then `Draft.publish` creates the whole trial at
once. Only the public BaseStorage interface is used.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from affinity_search.storage.database.optuna_storage.forwarding import forwarding

DRAFT_ID = -1  # no database gives a trial this id


class Draft:
    """The trial that `ask` made within `drafting`. `number` is a guess; Hyperband groups trials by it."""

    def __init__(self, number: int) -> None:
        self.trial = FrozenTrial(
            number=number,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=DRAFT_ID,
        )
        self.study_id = DRAFT_ID
        self.seen: dict[int, list[FrozenTrial]] = {}  # by study id: its trials, read once for a proposal

    def publish(self, storage: BaseStorage, system_attrs: Mapping[str, Any], **attributes: Any) -> int:
        """Create the trial with these system and user attributes. Returns its id in the storage."""
        self.trial.system_attrs.update(system_attrs)
        self.trial.user_attrs.update(attributes)
        return storage.create_new_trial(self.study_id, self.trial)


class _Desk(threading.local):
    draft: Draft | None = None


_desk = _Desk()


@contextlib.contextmanager
def drafting(number: int) -> Iterator[Draft]:
    """Within it, `study.ask` of this thread makes a draft, on any study of a `Backend`. It ignores Optuna's queue."""
    draft = _desk.draft = Draft(number)
    try:
        yield draft
    finally:
        _desk.draft = None


def drafting_storage(storage: BaseStorage) -> BaseStorage:
    """The same storage, except that requests about this thread's draft go to the draft."""
    made: BaseStorage = _DraftingStorage(storage)
    return made


class _DraftingStorage(forwarding(lambda self, request: request())):  # type: ignore[misc]
    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        if _desk.draft is None or template_trial is not None:
            return self._storage.create_new_trial(study_id, template_trial)
        _desk.draft.study_id = study_id
        return DRAFT_ID

    def get_trial(self, trial_id: int) -> FrozenTrial:
        draft = _drafted(trial_id)
        return self._storage.get_trial(trial_id) if draft is None else draft

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        draft = _drafted(trial_id)
        return self._storage.get_trial_system_attrs(trial_id) if draft is None else draft.system_attrs

    def set_trial_param(self, trial_id: int, name: str, internal: float, distribution: BaseDistribution) -> None:
        draft = _drafted(trial_id)
        if draft is None:
            self._storage.set_trial_param(trial_id, name, internal, distribution)
        else:
            draft.distributions[name] = distribution
            draft.params[name] = distribution.to_external_repr(internal)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        draft = _drafted(trial_id)
        if draft is None:
            self._storage.set_trial_system_attr(trial_id, key, value)
        else:
            draft.system_attrs[key] = value

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        draft = _desk.draft
        if draft is None:
            return self._storage.get_all_trials(study_id, deepcopy, states)
        if states == (TrialState.WAITING,):
            return []  # `ask` looks for queued trials; we have places instead
        # TPE reads for the space, and again to propose. All trials that other workers train come from the database.
        if study_id not in draft.seen:
            draft.seen[study_id] = self._storage.get_all_trials(study_id, deepcopy=False)
        found = [trial for trial in draft.seen[study_id] if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found


def _drafted(trial_id: int) -> FrozenTrial | None:
    return _desk.draft.trial if _desk.draft is not None and trial_id == DRAFT_ID else None
