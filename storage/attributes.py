"""What is written beside a trial, as everybody but its writer shall see it.

Optuna writes each attribute by itself, so what is only read together is kept together.
"""

from __future__ import annotations

from typing import Any

from optuna.trial import FrozenTrial

MADE_BY = "made_by"  # place, attempt, seed, worker, device, protocol, versions
# Of the best epoch: best_epoch (from 1), epochs (trained so far), duration_s, macro_f1 and the others.
SCORES = "scores"
DIAGNOSTICS = "diagnostics"  # among the scores: those of the last epoch


FIRST_EPOCH = "first_epoch"  # how much of it is done, from 0 to 1, while it lasts


def attributes(trial: FrozenTrial) -> dict[str, Any]:
    """The trial's user attributes, with the single ones of those kept together among them."""
    attrs = trial.user_attrs
    scores = attrs.get(SCORES, {})
    if "epoch" in scores:  # 0.1.0 counted the best epoch from 0
        scores = {"best_epoch": scores["epoch"] + 1, "epochs": len(trial.intermediate_values)} | scores
    return {**attrs, **attrs.get(MADE_BY, {}), **scores}
