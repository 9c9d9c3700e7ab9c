"""What is written beside a trial, as everybody but its writer shall see it."""

from __future__ import annotations

from typing import Any

from optuna.trial import FrozenTrial

# One attribute holds the best epoch's scores, because each attribute is a transaction of its own.
SCORES = "scores"
DIAGNOSTICS = "diagnostics"  # among them: those of the last epoch, and what they say in words


def attributes(trial: FrozenTrial) -> dict[str, Any]:
    """The trial's user attributes, with `epoch`, `duration_s`, `macro_f1` and the other scores among them."""
    return {**trial.user_attrs, **trial.user_attrs.get(SCORES, {})}
