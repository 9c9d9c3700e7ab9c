"""What a search looks like now, read from the database: for the live view, `status` and plain lines."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from storage.attributes import attributes
from storage.errors import NothingToExportError
from storage.export import best_trials
from storage.places import Places
from storage.study import StoredStudy
from storage.tables import PlaceState, Stop
from storage.tallies import Counts


@dataclass(frozen=True)
class Running:
    """A held place and the trial that is trained at it."""

    worker: str
    device: str
    host: str
    place: int
    attempt: int
    trial: int | None
    epoch: int  # finished epochs
    score: float | None  # the best macro F1 so far
    since_s: float


@dataclass(frozen=True)
class Best:
    """The best trial, complete or pruned."""

    trial: int
    value: float
    macro_f1: float
    params: dict[str, float | int]
    epoch: int  # its best one, from 1
    state: str


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment."""

    study: str
    protocol: str
    dataset: str
    minority: int
    epochs: int
    counts: Counts
    best: Best | None
    running: tuple[Running, ...]
    attempts: int  # Optuna trials begun, whatever became of them
    left_s: float | None  # None before the first place is used
    failures: dict[str, int]  # why places were spent without a value, and how many
    stopped: Stop | None  # since `stop`, until `launch`
    foreign: int  # trials that another program put into the study, which nobody trains here

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        best = self.best and {
            "trial": self.best.trial,
            "value": self.best.value,
            "macro_f1": self.best.macro_f1,
            "params": self.best.params,
            "epoch": self.best.epoch,
            "state": self.best.state,
        }
        own = {key: getattr(self, key) for key in ("study", "protocol", "dataset", "minority", "epochs", "attempts")}
        running = [vars(one) for one in self.running]
        return own | {
            "counts": self.counts.to_dict(),
            "best": best,
            "running": running,
            "left_s": self.left_s,
            "failures": self.failures,
            "stopped": self.stopped,
            "foreign": self.foreign,
        }


def take(study: StoredStudy) -> Snapshot:
    """Read the study's present state."""
    places = Places(study.backend, study.token)
    now = study.backend.time()
    held = places.rows(PlaceState.HELD)
    counts = places.counts()
    trials = {t.number: t for t in study.optuna.get_trials(deepcopy=False)}
    own = sum("place" in attributes(trial) for trial in trials.values())
    spec = study.spec
    return Snapshot(
        study=spec.name,
        protocol=spec.protocol,
        dataset=spec.data.set,
        minority=spec.data.minority,
        epochs=spec.training.epochs,
        counts=counts,
        best=_best(study),
        running=tuple(_running(row, trials.get(row["trial"]), now) for row in held),
        attempts=own,
        left_s=_left_s(places.mean_duration_s(), counts, [max(0.0, now - row["claimed_at"]) for row in held]),
        failures=places.failures() if counts.failed else {},
        stopped=study.stopped,
        foreign=len(trials) - own,
    )


def _best(study: StoredStudy) -> Best | None:
    with contextlib.suppress(NothingToExportError, IndexError):
        trial, row = best_trials(study)[0]
        attrs = attributes(trial)
        return Best(trial.number, row["value"], attrs["macro_f1"], row["params"], attrs["best_epoch"], row["state"])
    return None


def _running(row: dict[str, Any], trial: FrozenTrial | None, now: float) -> Running:
    scores = trial.intermediate_values if trial else {}
    return Running(
        worker=row["worker"],
        device=row["device"],
        host=row["host"],
        place=row["number"],
        attempt=row["attempt"],
        trial=row["trial"],
        epoch=len(scores),
        score=1.0 - min(scores.values()) if scores else None,
        since_s=max(0.0, now - row["claimed_at"]),
    )


def _left_s(mean_s: float | None, counts: Counts, running_s: list[float]) -> float | None:
    """Mean time of a used place × free places, and what the running ones have left of it, / workers at it now."""
    if counts.used == counts.total:
        return 0.0
    if mean_s is None or not running_s:
        return None
    return (mean_s * counts.free + sum(max(0.0, mean_s - s) for s in running_s)) / len(running_s)
