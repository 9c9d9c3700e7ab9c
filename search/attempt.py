"""One attempt at one place: its Optuna trial from ask to tell, and the place's row that decides."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from search.objective import Objective, Params
from search.sampling import make_pruner, make_sampler, suggest
from search.seeds import sampler_seed, trial_seed
from storage.errors import LostPlaceError
from storage.patience import is_transient
from storage.places import Claim, Holder, Places
from storage.recovery import end_trial
from storage.study import StoredStudy
from storage.tables import PlaceState

if TYPE_CHECKING:
    from search.training.fit import EpochScore, TrainingResult


class Attempt:
    """Begun with a claim; ended exactly once by `complete`, `prune`, `fail`, `retry_later` or `give_back`.

    The place's row is written first, on the condition that the claim still holds, and the Optuna trial follows.
    """

    def __init__(self, study: StoredStudy, claim: Claim, holder: Holder, versions: dict[str, str]) -> None:
        self.study = study
        self.claim = claim
        self.seed = trial_seed(study.spec.seed, claim.number)
        self._places = Places(study.backend, study.token)
        self._scores: list[EpochScore] = []
        self._waiting: deque[EpochScore] = deque()
        self._started = time.monotonic()
        self._trial = self._ask()
        self.params: Params = suggest(self._trial, study.spec.space)
        self._begin()
        self._describe(
            place=claim.number,
            attempt=claim.attempt,
            seed=self.seed,
            protocol=study.spec.protocol,
            worker=holder.worker,
            device=holder.device,
            versions=versions,
        )

    @property
    def number(self) -> int:
        """Number of the Optuna trial."""
        return self._trial.number

    def report(self, score: EpochScore) -> None:
        """Record an epoch's 1 − macro F1; while the storage is away, with the next one that gets through.

        Raises:
            optuna.TrialPruned: the study's pruner says that the trial is not worth going on.
            LostPlaceError: the trial was ended by others.
        """
        self._scores.append(score)
        self._waiting.append(score)
        last = score.epoch + 1 >= self.study.spec.training.epochs
        try:
            with self.study.backend.at_once():
                self._send()
                prune = not last and self._trial.should_prune()
        except Exception as error:
            if not is_transient(error):
                raise
            return  # the storage is away: training goes on, the report waits its turn
        if prune:
            raise optuna.TrialPruned

    def _send(self) -> None:
        """Report the waiting epochs in their order."""
        while self._waiting:
            score = self._waiting[0]
            with self._unless_ended():
                self._trial.report(1.0 - score.scores.macro_f1, score.epoch)
            self._waiting.popleft()

    def train(
        self,
        objective: Objective,
        should_stop: Callable[[], bool],
        on_epoch: Callable[[EpochScore], None] = lambda score: None,
    ) -> TrainingResult:
        """Train the place's parameters with its seed, reporting every epoch.

        Raises:
            optuna.TrialPruned, DivergedError, TrainingInterrupted: as `report` and `Objective.run`.
        """

        def after_epoch(score: EpochScore) -> None:
            on_epoch(score)
            self.report(score)

        space = self.study.spec.space
        most = space.max_centers if space else None
        return objective.run(self.params, self.seed, after_epoch, should_stop, max_centers=most)

    def complete(self, value: float) -> None:
        """End with 1 − macro F1 of the best epoch."""
        self._describe_scores()
        self._places.finish(self.claim, PlaceState.COMPLETE, value=value)
        self._tell(TrialState.COMPLETE, value)

    def prune(self) -> None:
        """End as stopped by the pruner."""
        self._describe_scores()
        self._places.finish(self.claim, PlaceState.PRUNED)
        self._tell(TrialState.PRUNED)

    def fail(self, reason: str) -> None:
        """End without a value; the place is used up."""
        self._describe(reason=reason, duration_s=self._duration_s())
        self._places.finish(self.claim, PlaceState.SPENT, reason=reason)
        self._tell(TrialState.FAIL)

    def retry_later(self, reason: str) -> None:
        """End this attempt; the place is free again unless it was the last one."""
        self._describe(reason=reason, duration_s=self._duration_s())
        self._places.fail_attempt(self.claim, reason)
        self._tell(TrialState.FAIL)

    def give_back(self, reason: str) -> None:
        """End this attempt on request; it is not counted."""
        self._describe(reason=reason, duration_s=self._duration_s())
        self._places.give_back(self.claim, reason)
        self._tell(TrialState.FAIL)

    def drop(self) -> None:
        """The place is somebody else's now: only this attempt's own Optuna trial is closed."""
        self._tell(TrialState.FAIL)

    def _begin(self) -> None:
        try:
            self._places.begin(self.claim, self._trial.number, self.params)
        except LostPlaceError:
            self.drop()  # nobody else knows of this trial: it would run for ever
            raise

    def _ask(self) -> optuna.Trial:
        spec, study = self.study.spec, self.study.optuna
        study.sampler = make_sampler(spec.sampler, sampler_seed(spec.seed, self.claim.number), self.claim.params)
        study.pruner = make_pruner(spec.pruner, spec.training.epochs)
        return study.ask()

    def _tell(self, state: TrialState, value: float | None = None) -> None:
        end_trial(self.study, self._trial.number, state, value)

    def _duration_s(self) -> float:
        return time.monotonic() - self._started

    def _describe(self, **attributes: Any) -> None:
        with self._unless_ended():
            for key, value in attributes.items():
                self._trial.set_user_attr(key, value)

    @contextlib.contextmanager
    def _unless_ended(self) -> Iterator[None]:
        """Optuna refuses writes to a trial that is over: somebody ended it when this worker's lease had ended."""
        try:
            yield
        except UpdateFinishedTrialError:
            raise LostPlaceError(
                f"trial {self.number} was ended by others, as this worker was not heard of; it is dropped"
            ) from None

    def _describe_scores(self) -> None:
        """The best epoch's metrics; a finished trial takes no attributes, so this comes before its end."""
        if not self._scores:
            return
        self._send()
        best = max(self._scores, key=lambda score: (score.scores.macro_f1, -score.epoch))
        metrics = best.scores.to_dict()
        self._describe(epoch=best.epoch, duration_s=self._duration_s(), **metrics)
