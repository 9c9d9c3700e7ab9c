"""The worker: claim a place, train it, say how it ended, until no place is free."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from search.attempt import Attempt
from search.objective import Objective
from search.signals import StopSignals
from storage.errors import LostPlaceError
from storage.leases import LeaseKeeper
from storage.patience import Patience, StorageGoneError
from storage.places import DEFAULT_LEASE_S, Claim, Holder, Places
from storage.recovery import LOOKS_A_LEASE, RecoveryThread
from storage.study import StoredStudy

if TYPE_CHECKING:
    from search.training.fit import EpochScore


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker runs on: `device` is cpu, gpu:K or tpu; `threads` None leaves the choice to the framework."""

    device: str
    threads: int | None = None
    data_dir: Path | None = None
    worker_id: str | None = None
    lease_s: float = DEFAULT_LEASE_S


def new_worker_id() -> str:
    """Unique for the life of a worker process, readable in tables: host and a random part."""
    return f"{socket.gethostname()[:40]}-{secrets.token_hex(3)}"


def say(message: str) -> None:
    """One line for the person or the log."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def work(study: StoredStudy, options: WorkerOptions) -> int:
    """Use up places of the study until none is free or somebody asks to stop; returns how many it ended.

    Raises:
        DeviceError, DataError: this machine cannot train the study; no place is claimed.
    """
    with StopSignals(_announce) as signals:
        study = study.made_patient(Patience(say, give_up=signals.should_stop))
        with RecoveryThread(study, say, options.lease_s / LOOKS_A_LEASE):
            return _use_up_places(study, options, signals)


def _use_up_places(study: StoredStudy, options: WorkerOptions, signals: StopSignals) -> int:
    worker = _prepare(study, options)
    ended = 0
    while not signals.draining and (claim := worker.places.claim(worker.holder)):
        ended += worker.run(claim, signals.should_stop)
    say(f"worker {worker.holder.worker}: {ended} trials ended" + (", stopped" if signals.draining else ""))
    return ended


def _announce(signals: StopSignals) -> None:
    """Called from the signal handler, where `print` could find itself interrupted in the middle of a line."""
    message = "stopping now, the trial is given back" if signals.stopping else "no new trial after this one"
    os.write(2, f"{time.strftime('%H:%M:%S')} {message}\n".encode())


@dataclass
class Worker:
    """A process ready to train: data loaded, device and precision settled."""

    study: StoredStudy
    holder: Holder
    objective: Objective
    places: Places
    versions: dict[str, str]

    def run(self, claim: Claim, should_stop: Callable[[], bool]) -> bool:
        """One attempt at a claimed place; true if the place was used up by it."""
        self.study = self.study.refreshed()  # others may have widened the space or changed the sampler
        with LeaseKeeper(self.places, claim) as keeper:
            try:
                attempt = Attempt(self.study, claim, self.holder, self.versions)
            except LostPlaceError as error:
                say(str(error))
                return False
            say(f"trial {attempt.number} (place {claim.number}) begins: {_shown(attempt.params)}")
            try:
                return self._train(attempt, lambda: keeper.lost or should_stop())
            except LostPlaceError as error:
                attempt.drop()
                say(str(error))
                return False

    def _train(self, attempt: Attempt, should_stop: Callable[[], bool]) -> bool:
        from search.training.errors import DivergedError, TrainingInterrupted

        try:
            result = attempt.train(self.objective, should_stop, lambda score: self._show_epoch(attempt, score))
        except optuna.TrialPruned:
            attempt.prune()
            say(f"trial {attempt.number} pruned")
        except DivergedError as error:
            attempt.fail(str(error))
            say(f"trial {attempt.number} failed: {error}")
        except TrainingInterrupted:
            attempt.give_back("given back: the worker was asked to stop")
            say(f"trial {attempt.number} given back")
            return False
        except (LostPlaceError, StorageGoneError):
            raise
        except Exception as error:
            # Unknown, so perhaps this machine's fault: the place gets another attempt, this process ends loudly.
            attempt.retry_later(f"{type(error).__name__}: {error}"[:500])
            raise
        else:
            attempt.complete(result.value)
            best = result.best
            say(
                f"trial {attempt.number} complete: macro F1 {best.scores.macro_f1:.4f} "
                f"({self.study.spec.protocol}) at epoch {best.epoch}"
            )
        return True

    def _show_epoch(self, attempt: Attempt, score: EpochScore) -> None:
        spec = self.study.spec
        say(f"trial {attempt.number} " + epoch_text(score, spec.training.epochs, spec.protocol))


def _prepare(study: StoredStudy, options: WorkerOptions) -> Worker:
    from search import devices

    devices.configure(options.device, options.threads)
    study = study.settle_precision(devices.settle_precision(study.spec.training.precision))
    holder = Holder(
        worker=options.worker_id or new_worker_id(),
        host=socket.gethostname(),
        pid=os.getpid(),
        device=devices.describe(),
    )
    say(f"worker {holder.worker} on {holder.device}, {study.precision}, study {study.name}")
    objective = Objective(study.spec, study.settled_precision, options.data_dir)
    return Worker(
        study,
        holder,
        objective,
        Places(study.backend, study.token, options.lease_s),
        devices.versions(),
    )


def epoch_text(score: EpochScore, epochs: int, protocol: str) -> str:
    """An epoch in one line, with the protocol's name beside its score."""
    return (
        f"epoch {score.epoch + 1}/{epochs}: macro F1 {score.scores.macro_f1:.4f} ({protocol}), loss {score.loss:.4f}, "
        f"{score.duration_s:.1f} s"
    )


def _shown(params: dict[str, float | int]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in params.items()) or "softmax"
