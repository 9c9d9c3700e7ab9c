"""Trains one claimed place after the other, from its claim to its end. Each way to end has its own reaction."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import psutil

from affinity_search.search.devices.errors import MACHINE_ERRORS, UnfitMachineError, unfit_text
from affinity_search.search.training.errors import DivergedError, OutOfMemoryError, TrainingInterrupted
from affinity_search.search.training.results import overall
from affinity_search.search.view.pictures import Album
from affinity_search.search.view.terminal import plural
from affinity_search.search.worker.attempt import Attempt
from affinity_search.search.worker.exits import Exit
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.database.patience import is_transient
from affinity_search.storage.database.runtime import leave_what_is_here
from affinity_search.storage.database.tables import Cause
from affinity_search.storage.errors import LostPlaceError, StorageGoneError, VanishedError
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.places.claims import Claim, Holder, Places
from affinity_search.storage.places.leases import LeaseKeeper
from affinity_search.storage.study import StoredStudy

if TYPE_CHECKING:
    from affinity_search.search.training.results import EpochScore
    from affinity_search.studies.model.spec import StudySpec


FIRST_STEP = "first training step"  # benchmarks/start.py looks for it


def process_age_s() -> float:
    """Seconds since this process began.

    Linux tells the beginning in hundredths of a second since the machine's start. psutil adds that to the start's date,
    which the kernel tells in whole seconds: so a process seems up to a second older than it is.
    """
    try:
        began = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]  # proc(5): field 22
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(began) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):  # not Linux
        return time.time() - psutil.Process().create_time()


def say(message: str) -> None:
    """One line for the person or the log."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


GIVEN_BACK = "given back: the worker was asked to stop"


@dataclass
class Worker:
    """A process that is ready to train: the data is loaded, the device and the precision are settled."""

    study: StoredStudy
    holder: Holder
    trainer: StudyTrainer
    places: Places
    versions: dict[str, str]
    files: StudyFiles
    album: Album | None = None
    card: str | None = None  # which GPU this process has; None on a CPU or TPU
    last_failed: bool = False  # whether the last attempt ended without a value
    has_stepped: bool = False
    attempt: Attempt | None = None  # the running attempt, for `abandon`

    def run(self, claim: Claim, should_stop: Callable[[], bool]) -> bool:
        """Make one attempt at a claimed place. True if it used up the place."""
        self.study = self.study.refreshed()  # others may have widened the space or changed the sampler
        with LeaseKeeper(self.places, claim) as keeper:
            try:
                attempt = Attempt(
                    self.study, claim, self.holder, self.versions, self.files, say, self.album, lambda: keeper.lost
                )
            except LostPlaceError as error:
                say(str(error))
                return False
            shown = _shown(attempt.params) or self.study.spec.head.name
            say(f"trial {attempt.number} (place {claim.number}) begins: {shown}")
            self.attempt = attempt
            try:
                outcome = self._train(
                    attempt,
                    lambda: self._stepped(attempt) or keeper.lost or attempt.study.backend.vanished or should_stop(),
                )
                return self._conclude(attempt, outcome)
            except StorageGoneError:
                attempt.save()
                raise
            except LostPlaceError as error:
                attempt.drop()
                say(str(error))
                return False
            finally:
                self.attempt = None

    def abandon(self) -> None:
        """Save the last finished epoch and give the place back, when the main thread hangs."""
        attempt = self.attempt
        if attempt is not None:
            try:
                attempt.abandon(GIVEN_BACK)
            except VanishedError as error:
                say(f"error: {error}")
                os._exit(Exit.VANISHED)

    def _stepped(self, attempt: Attempt) -> bool:
        """Called after every step. The first time it tells how long the start took."""
        attempt.tell_share(self.trainer.epoch_share)
        if not self.has_stepped:
            self.has_stepped = True
            leave_what_is_here()
            say(f"{FIRST_STEP} {process_age_s():.1f} s after this process began")
        return False

    def _train(self, attempt: Attempt, should_stop: Callable[[], bool]) -> Exception | None:
        """Train. Returns the error that ended the training early, or None. `_conclude` reacts to it outside of this
        `try`.
        """

        def show(score: EpochScore) -> None:
            spec = self.study.spec
            say(f"trial {attempt.number} " + epoch_text(score, spec))

        try:
            attempt.train(self.trainer, should_stop, show)
        except LostPlaceError:
            raise
        except Exception as error:
            return error
        return None

    def _conclude(self, attempt: Attempt, outcome: Exception | None) -> bool:
        """End the attempt as its outcome says. True if the place is used up.

        A failed trial uses up its place. After a lack of memory it is tried once more (see `_out_of_memory`). A storage
        that stays away ends the worker.
        """
        self.last_failed = outcome is not None and not isinstance(outcome, optuna.TrialPruned)
        if isinstance(outcome, optuna.TrialPruned):
            attempt.prune()
            say(f"trial {attempt.number} pruned after {plural(len(attempt.epochs), 'epoch')}: {self._best(attempt)}")
        elif isinstance(outcome, DivergedError):
            attempt.fail(Cause.DIVERGED, str(outcome))
            say(f"trial {attempt.number} failed: {outcome}")
        elif isinstance(outcome, OutOfMemoryError):
            return self._out_of_memory(attempt, outcome)
        elif isinstance(outcome, TrainingInterrupted):
            self._give_back(attempt)
            return False
        elif isinstance(outcome, StorageGoneError):
            raise outcome
        elif isinstance(outcome, MACHINE_ERRORS):
            # Every place would fail so on this machine: the place is kept, and the attempt does not count.
            self._give_back(attempt, f"given back: {unfit_text(outcome)}")
            raise UnfitMachineError(unfit_text(outcome)) from outcome
        elif outcome is not None:
            # An unknown error may be this machine's fault. The place gets another attempt, and this process ends with
            # the error.
            text = f"{type(outcome).__name__}: {outcome}"
            attempt.retry_later(text.splitlines()[0], text[:500])
            raise outcome
        else:
            attempt.complete()
            say(f"trial {attempt.number} complete: {self._best(attempt)}")
        return True

    def _best(self, attempt: Attempt) -> str:
        spec = self.study.spec
        best, runs = overall(attempt.epochs, spec.metric), attempt.epochs[-1].run + 1
        where = f"({spec.protocol}) at epoch {best.number}" if runs == 1 else f"({spec.protocol}, mean of {runs})"
        return f"{spec.score.label} {best.scores[spec.metric]:.4f} {where}"

    def _out_of_memory(self, attempt: Attempt, error: OutOfMemoryError) -> bool:
        """Use the place up if it failed so before, else free it. True if it is used up.

        Raises:
            OutOfMemoryError: this was on a GPU, and the process is to end.
        """
        if self.card is None:
            say(f"trial {attempt.number} failed: {error}")
            again = attempt.failed_before(Cause.OUT_OF_MEMORY)
            return attempt.retry_later(Cause.OUT_OF_MEMORY, str(error), last=again)
        # All trials of a study need about the same memory. So a lack of it is more likely the GPU's fault (others use
        # it, or it is broken) than the place's. The place is used up when a second GPU has no room either. If there is
        # only one GPU, the study's `max_attempts` is the limit.
        say(f"trial {attempt.number} failed: {Cause.OUT_OF_MEMORY}")  # the last line of the process tells the rest
        again = attempt.failed_before(Cause.OUT_OF_MEMORY, beside=self.card)
        attempt.retry_later(Cause.OUT_OF_MEMORY, str(error), last=again, card=self.card)
        # The memory that this process holds may be in the way. A launcher starts another process there, a limited
        # number of times.
        raise error

    def _give_back(self, attempt: Attempt, reason: str = GIVEN_BACK) -> None:
        try:
            attempt.give_back(reason)
            say(f"trial {attempt.number} given back")
        except Exception as error:
            if not is_transient(error):
                raise
            say(f"trial {attempt.number} stopped; the storage is away, so its place becomes free when its lease ends")


def epoch_text(score: EpochScore, spec: StudySpec) -> str:
    """An epoch in one line, with the protocol's name beside its score."""
    return (
        f"epoch {score.number}/{spec.trial_epochs}: {spec.score.label} {score.scores[spec.metric]:.4f} "
        f"({spec.protocol}), loss {score.loss:.4f}, {score.duration_s:.1f} s"
    )


def _shown(params: dict[str, float | int]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in params.items())
