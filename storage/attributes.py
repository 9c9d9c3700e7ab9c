"""What is written beside a trial, as everybody but its writer shall see it.

Optuna writes each attribute by itself, so what is only read together is kept together.
"""

from __future__ import annotations

from typing import Any

from optuna.trial import FrozenTrial

MADE_BY = "made_by"  # place, attempt, seed, worker, device, protocol, versions
SCORES = "scores"  # of the best epoch: epoch, duration_s, macro_f1 and the others
DIAGNOSTICS = "diagnostics"  # among the scores: those of the last epoch


def attributes(trial: FrozenTrial) -> dict[str, Any]:
    """The trial's user attributes, with the single ones of those kept together among them."""
    attrs = trial.user_attrs
    return {**attrs, **attrs.get(MADE_BY, {}), **attrs.get(SCORES, {})}
