"""The facts of a trial: only this module reads the attributes that `record` writes, into dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from affinity_search.studies.metrics import METRICS

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from affinity_search.storage.study import StoredStudy

# Several facts share one attribute: setting one is a transaction, and each is read with every trial.
MADE_BY = "made_by"  # place, attempt, seed, worker, device, protocol, versions
SCORES = "scores"  # of the best epoch, and its diagnostics
KEPT_TOGETHER = (MADE_BY, SCORES)


@dataclass(frozen=True)
class TrialScores:
    """The scores of a trial's best epoch. Scores are fractions in [0, 1]; lists are indexed by class."""

    best_epoch: int  # from 1
    epochs: int  # trained so far, with those of an earlier attempt
    duration_s: float  # of this attempt
    macro_f1: float
    micro_f1: float
    minority_f1: float
    majority_f1: float
    per_class_f1: list[float]
    support: list[int]
    diagnostics: Mapping[str, Any] | None  # those of the last epoch; None for the softmax head
    metrics: Mapping[str, float]  # by their keys in studies/metrics.py
    adjustment: float | None  # τ of the best epoch's post-hoc adjustment; None where there is none

    @classmethod
    def of(cls, trial: FrozenTrial) -> Self | None:
        """None before the trial's end, and where a score is missing."""
        told = trial.user_attrs.get(SCORES)
        if not isinstance(told, Mapping):
            return None
        if "epoch" in told:  # 0.1.0 counted the best epoch from 0
            told = {"best_epoch": told["epoch"] + 1, "epochs": len(trial.intermediate_values)} | dict(told)
        metrics = {key: told[key] for key in METRICS if key in told}
        kept: dict[str, Any] = {"diagnostics": None, "adjustment": None, "metrics": metrics}
        kept |= {name: told[name] for name in _SCORES if name in told}
        return cls(**kept) if len(kept) == len(_SCORES) else None


@dataclass(frozen=True)
class TrialFacts:
    """All facts of a trial besides its parameters and reports. None: not recorded."""

    place: int | None  # None: another program made the trial
    attempt: int | None  # from 1
    seed: int | None
    worker: str | None
    device: str | None
    protocol: str | None
    versions: Mapping[str, str] | None
    cause: str | None  # why it ended without a value, to compare
    reason: str | None  # the same, for people
    card: str | None  # the GPU on which it failed
    duration_s: float | None
    resumed_epochs: int | None  # trained by an earlier attempt
    first_epoch: float | None  # the last recorded share of the first epoch, from 0 to 1
    audited_after: int | None  # so many epochs were trained when the pruner would have stopped it; it ran on
    scores: TrialScores | None

    @classmethod
    def of(cls, trial: FrozenTrial) -> Self:
        """From the trial's user attributes."""
        told = trial.user_attrs | trial.user_attrs.get(MADE_BY, {})
        scores = TrialScores.of(trial)
        found = {name: told.get(name) for name in _FACTS} | {"scores": scores}
        return cls(**found | ({"duration_s": scores.duration_s} if scores else {}))


# Looked up once, because thousands of trials are read at a time.
_SCORES = tuple(field.name for field in fields(TrialScores))
_FACTS = tuple(field.name for field in fields(TrialFacts))


def place_of(trial: FrozenTrial) -> int | None:
    """As `TrialFacts.place`, but faster for thousands of trials."""
    attrs = trial.user_attrs
    place: int | None = attrs.get(MADE_BY, {}).get("place", attrs.get("place"))
    return place


def audited_after(trial: FrozenTrial) -> int | None:
    """As `TrialFacts.audited_after`, but faster for thousands of trials."""
    after: int | None = trial.user_attrs.get("audited_after")
    return after


def epochs_of(trial: FrozenTrial) -> int:
    """How many epochs an ended trial trained, with those of an earlier attempt."""
    scores = TrialScores.of(trial)
    return scores.epochs if scores else len(trial.intermediate_values)


def told_scores(trial: FrozenTrial) -> Mapping[str, Any] | None:
    """All scores of a trial as they were written, the confusion matrix among them. None before its end."""
    told = trial.user_attrs.get(SCORES)
    return told if isinstance(told, Mapping) else None


def opener_of(trial: FrozenTrial) -> str | None:
    """Of a final run: user@host of the process that opened the test images for it."""
    opened_by: str | None = trial.user_attrs.get(MADE_BY, {}).get("opened_by")
    return opened_by


def attempts_at(study: StoredStudy, place: int) -> list[FrozenTrial]:
    """The Optuna trials of a place's attempts so far, in their order."""
    return [trial for trial in study.optuna.get_trials(deepcopy=False) if place_of(trial) == place]
