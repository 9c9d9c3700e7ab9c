"""The chaos suite's own arithmetic."""

from typing import Any

import pytest
from chaos_audit import trained_epochs
from optuna.trial import FrozenTrial, create_trial


def attempt(number: int, reported: int, resumed: int | None = None, place: int = 0) -> FrozenTrial:
    attrs: dict[str, Any] = {"made_by": {"place": place}}
    if resumed is not None:
        attrs["resumed_epochs"] = resumed
    trial = create_trial(value=1.0, user_attrs=attrs, intermediate_values=dict.fromkeys(range(reported), 0.5))
    trial.number = number
    return trial


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([attempt(0, 30)], 30),
        ([attempt(0, 12), attempt(1, 30)], 42),  # afresh: twelve of them twice
        ([attempt(0, 12), attempt(1, 30, 10)], 32),  # from an older checkpoint: two of them twice
        ([attempt(0, 12), attempt(1, 30, 13)], 30),  # one was trained and not reported
        ([attempt(0, 12), attempt(1, 0), attempt(2, 30, 12)], 30),  # one was killed before it told of anything
        ([attempt(0, 12), attempt(1, 30, 12), attempt(2, 30, place=1)], 60),
    ],
)
def test_epochs_that_were_trained(attempts: list[FrozenTrial], expected: int) -> None:
    assert trained_epochs(attempts) == expected
