"""One attempt at one place. The place's row decides how it ended; its Optuna trial follows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from affinity_search.search.training.results import RunningValue, best_epoch, overall
from affinity_search.search.view.pictures import Album, new_key, pictures_of
from affinity_search.search.view.terminal import params_text
from affinity_search.search.worker.checkpointing import Checkpointer
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.database.patience import at_once, is_transient
from affinity_search.storage.database.tables import USED, Cause, PlaceState
from affinity_search.storage.errors import LostPlaceError
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.places.claims import Claim, Holder, Places
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts, attempts_at
from affinity_search.storage.trials.proposing import ask
from affinity_search.storage.trials.record import TrialRecord, end_trial
from affinity_search.storage.trials.reporting import Pruning, Report, Reports
from affinity_search.storage.trials.seeds import draw_seed, trial_seed

if TYPE_CHECKING:
    from affinity_search.search.training.checkpoints import TrainingState
    from affinity_search.search.training.fit import EpochScore


TELL_SHARE_EVERY_S = 10.0


class Attempt:
    """It begins with a claim. One of `complete`, `prune`, `fail`, `retry_later` and `give_back` ends it, exactly once.

    At the end the place's row is written first, if the claim still holds. The Optuna trial follows at once. Nothing
    slow may come in between: a worker that is killed there leaves a half-ended trial, which others must complete.
    """

    def __init__(
        self,
        study: StoredStudy,
        claim: Claim,
        holder: Holder,
        versions: dict[str, str],
        files: StudyFiles,
        say: Callable[[str], None],
        album: Album | None = None,
        is_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        """`album` keeps the data of the trial's pictures. `is_lost` tells whether another worker has the place now.

        Raises:
            LostPlaceError: somebody else holds the place by now.
        """
        self.study = study
        self._say = say
        self._files = files
        self._album = album
        self._is_lost = is_lost
        self._key = new_key()
        self.claim = claim
        seed = study.spec.seed
        self.seed = trial_seed(seed, claim.number) if claim.draw is None else draw_seed(seed, claim.draw)
        self._places = Places.of(study)
        self._scores: list[EpochScore] = []
        self._value = RunningValue(study.spec.metric, study.spec.training.epochs)
        self._tested: dict[str, Any] | None = None  # of a final run: its scores on the test images
        patience = study.backend.patience
        self._reports = Reports(self._report, patience.limit_s if patience else None)
        self._resumed = 0  # epochs that an earlier attempt has trained
        self._ending = threading.Lock()  # the thread that ends the attempt takes it and never releases it
        self._ended: tuple[int, str] | None = None  # which thread ended it, and how
        self._started = time.monotonic()
        self._tell_share_at = self._started + TELL_SHARE_EVERY_S
        trial_id, self.params = ask(study, claim, self.seed, holder, versions, self._key, pictures_of(study.spec))
        self.record = TrialRecord(study, trial_id)
        self._pruning = Pruning(study, claim, self.record)
        self._checkpoint = Checkpointer(files.checkpoint(claim.number), self._identity, say)
        self._begin()

    def _begin(self) -> None:
        try:
            self._places.begin(self.claim, self.number, self.params)
        except LostPlaceError:
            self.drop()  # nobody else knows this trial: it would run for ever
            raise

    @property
    def number(self) -> int:
        """Number of the Optuna trial."""
        return self.record.number

    @property
    def epochs(self) -> list[EpochScore]:
        """The epochs that were reported so far, with those of an earlier attempt."""
        return self._scores

    @property
    def _identity(self) -> dict[str, Any]:
        """Everything that decides how training goes on. A checkpoint with another identity is not used."""
        return {
            "fingerprint": self.study.fingerprint,
            "params": self.params,
            "seed": self.seed,
            "room": self.study.spec.max_centers,
        } | ({} if self.claim.draw is None else {"draw": self.claim.draw})

    def train(
        self,
        trainer: StudyTrainer,
        should_stop: Callable[[], bool],
        on_epoch: Callable[[EpochScore], None] = lambda score: None,
    ) -> None:
        """Train the place's parameters with its seed, and report every epoch. Goes on from its checkpoint if there is
        one. A final run trains on its draw's images, and then scores the test images with its best epoch's weights.

        `on_epoch` is called for each epoch that is trained now.

        Raises:
            optuna.TrialPruned, DivergedError, TrainingInterrupted: as `report` and `Trainer.epochs`.
        """
        from affinity_search.search.training.errors import CheckpointError

        self._tell_of_missing_checkpoint()
        if self.claim.draw is not None:
            trainer.use_draw(self.claim.draw)
        try:
            self._train_from(self._checkpoint.load(), trainer, should_stop, on_epoch)
        except CheckpointError as error:  # before its first epoch
            self._checkpoint.refuse(error)
            self._train_from(None, trainer, should_stop, on_epoch)

    def _train_from(
        self,
        state: TrainingState | None,
        trainer: StudyTrainer,
        should_stop: Callable[[], bool],
        on_epoch: Callable[[EpochScore], None],
    ) -> None:
        before, self._resumed = self._resumed, len(state.epochs) if state else 0
        if self._resumed != before:
            self.record.tell_resumed(self._resumed)
        whose, room, runs = (self.params, self.seed), self.study.spec.max_centers, self.study.spec.data.runs
        for score in trainer.epochs(*whose, should_stop=should_stop, max_centers=room, resume=state, runs=runs):
            if score.epoch >= self._resumed:
                state = self._kept(trainer.state(), state)
                self._checkpoint.keep(state)
                on_epoch(score)
            self.report(score)
        if self.claim.draw is not None:
            assert state is not None, "a study has at least one epoch"
            self._test(trainer, state)

    def _kept(self, now: TrainingState, before: TrainingState | None) -> TrainingState:
        """What a checkpoint holds. Of a final run also the best epoch's weights: these are tested at its end."""
        if self.claim.draw is None:
            return now
        is_best = best_epoch(now.epochs, self.study.spec.metric) is now.epochs[-1]
        return replace(now, best=now.variables if is_best or before is None else before.best)

    def _test(self, trainer: StudyTrainer, state: TrainingState) -> None:
        """The validation images have chosen the epoch (under `article` the test images). Score the test set once."""
        best = best_epoch(state.epochs, self.study.spec.metric)
        assert state.best is not None, "a final run keeps them"
        trainer.go_back(replace(state, epochs=state.epochs[: best.number], variables=state.best, best=None))
        self._tested = trainer.score_test()

    def _tell_of_missing_checkpoint(self) -> None:
        """Tell that the epochs of an earlier attempt are lost: its worker kept checkpoints in another folder."""
        if self.claim.params is None or self._checkpoint.path.exists():
            return
        earlier = [trial for trial in attempts_at(self.study, self.claim.number) if trial.intermediate_values]
        if earlier:
            reached, who = len(earlier[-1].intermediate_values), TrialFacts.of(earlier[-1]).worker or "its worker"
            self._say(
                f"place {self.claim.number} starts again from its first epoch: {who} had trained {reached} epochs, but "
                f"there is no checkpoint {self._checkpoint.path}; give all machines the same --files folder to go on"
            )

    def report(self, score: EpochScore) -> None:
        """Record the best value so far, 1 − metric. If the storage is away, it is sent later with the next report.

        A trial's value is its best epoch's, of several trainings their mean; pruner and sampler are told the same.

        Raises:
            optuna.TrialPruned: the study's pruner stops the trial.
            LostPlaceError: others have ended the trial.
            StorageGoneError: the storage has been away for longer than the limit.
        """
        self._scores.append(score)
        decided = score.epoch < self._resumed or score.epoch + 1 >= self.study.spec.trial_epochs
        report = Report(score.epoch, self._value.add(score))
        if self._reports.add(report, lambda: not decided and self._pruning.should_stop(len(self._scores))):
            raise optuna.TrialPruned

    def tell_share(self, share: float) -> None:
        """Record now and then how much of the first epoch is done. Before its end nothing else shows progress."""
        if self._scores or not share or time.monotonic() < self._tell_share_at:
            return
        self._tell_share_at = time.monotonic() + TELL_SHARE_EVERY_S
        try:
            with at_once():
                self.record.tell_share(share)
        except Exception as error:
            if not is_transient(error):  # it only informs
                raise

    def _report(self, report: Report) -> None:
        self.record.report(report.value, report.epoch)

    def save(self) -> None:
        """Write the last finished epoch for the next attempt. A lost place's file belongs to its new holder."""
        if not self._is_lost():
            self._checkpoint.write()

    def complete(self) -> None:
        """End with the value of the best epoch."""
        self._finish(PlaceState.COMPLETE, TrialState.COMPLETE)

    def prune(self) -> None:
        """End as pruned, with the value of the best epoch so far."""
        self._finish(PlaceState.PRUNED, TrialState.PRUNED)

    def _finish(self, place: PlaceState, trial: TrialState) -> None:
        self._end(place)
        self._describe_scores()
        self._keep_history()
        value = self._value.value if self._tested is None else 1.0 - self._tested[self.study.spec.metric]
        self._places.finish(self.claim, place, value=value)
        self._follow(place, trial, value)

    def fail(self, cause: str, reason: str) -> None:
        """End without a value; the place is used up."""
        self._end(cause)
        self._describe_failure(cause, reason)
        self._keep_history()
        self._places.finish(self.claim, PlaceState.SPENT, cause=cause, reason=reason)
        self._follow(PlaceState.SPENT, TrialState.FAIL)

    def retry_later(self, cause: str, reason: str, *, last: bool = False, card: str | None = None) -> bool:
        """End this attempt. The place is free again, unless this was its last attempt. Returns whether it is used up.

        `card` is the GPU on which it failed; `failed_before` reads it.
        """
        self.save()
        self._end(cause)
        self._describe_failure(cause, reason, card)
        state = self._places.fail_attempt(self.claim, cause, reason, last=last)
        self._follow(state, TrialState.FAIL)
        return state == PlaceState.SPENT

    def failed_before(self, cause: str, *, beside: str | None = None) -> bool:
        """Whether an earlier attempt at this place ended for that cause, and not on the GPU `beside`."""
        trials = attempts_at(self.study, self.claim.number)
        earlier = [TrialFacts.of(trial) for trial in trials if trial.number != self.number]
        return any(facts.cause == cause and (beside is None or facts.card != beside) for facts in earlier)

    def give_back(self, reason: str) -> None:
        """End this attempt on request and keep a checkpoint. The attempt does not count.

        Raises the database's error if it is away: then the place becomes free when its lease ends.
        """
        self.save()
        self._end(Cause.PREEMPTED)
        self._give_back(reason)

    def abandon(self, reason: str) -> None:
        """As `give_back`, from another thread. Does nothing if the training thread is ending it already."""
        if self._end(Cause.PREEMPTED, wait=False):
            self.save()
            self._give_back(reason)

    def _end(self, how: str, *, wait: bool = True) -> bool:
        """Call it before any end is written. False if another thread ends the attempt and `wait` is false.

        A thread that waits here waits for ever: the other one ends the process.

        Raises:
            RuntimeError: this thread has ended it already.
        """
        if self._ended and self._ended[0] == threading.get_ident():
            raise RuntimeError(f"trial {self.number} has ended ({self._ended[1]}) and cannot end again ({how})")
        if not self._ending.acquire(blocking=wait):
            return False
        self._ended = threading.get_ident(), how
        return True

    def _give_back(self, reason: str) -> None:
        with at_once():
            self._describe_failure(Cause.PREEMPTED, reason)
            self._places.give_back(self.claim, reason)
            self._follow(PlaceState.FREE, TrialState.FAIL)

    def _follow(self, place: PlaceState, trial: TrialState, value: float | None = None) -> None:
        """End the Optuna trial after the place's row, and remove the checkpoint of a used place."""
        self.record.end(trial, value)
        if place in USED:
            self._files.drop_checkpoint(self.claim.number)

    def drop(self) -> None:
        """Another worker has the place now: close only this attempt's Optuna trial."""
        reason = "its place went to another worker, because this one was silent for too long"
        end_trial(self.study, self.number, TrialState.FAIL, reason=reason)

    def _keep_history(self) -> None:
        if self._album is not None:
            title = f"trial {self.number}: {params_text(self.params, self.study.spec.head)}"
            self._album.keep(self._key, title, self.study.spec.protocol, self._scores)

    def _duration_s(self) -> float:
        return time.monotonic() - self._started

    def _describe_failure(self, cause: str, reason: str, card: str | None = None) -> None:
        self.record.tell_failure(cause, reason, self._duration_s(), card)

    def _describe_scores(self) -> None:
        """Of the best epoch, or a final run's on the test images; before the end, as a finished trial takes none."""
        self._reports.flush()
        self._pruning.tell()
        best, told = overall(self._scores, self.study.spec.metric), self._scores[-1].diagnostics
        adjusted = {} if best.adjustment is None else {"adjustment": best.adjustment}
        self.record.tell_scores(
            (self._tested or best.scores.to_dict()) | adjusted,
            best_epoch=best.number,
            epochs=len(self._scores),
            duration_s=self._duration_s(),
            diagnostics=told and told.to_dict(),
        )
