"""What holds where nobody says otherwise is said in one place."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from search.cli.launch import launch
from search.cli.worker import worker
from search.launcher import Launcher
from search.worker import WorkerOptions
from storage import defaults
from storage.patience import Patience
from storage.places import Places


@pytest.mark.parametrize("taker", [launch, worker, Launcher, WorkerOptions, Places])
def test_the_lease(taker: Callable[..., Any]) -> None:
    assert inspect.signature(taker).parameters["lease_s"].default is defaults.DEFAULT_LEASE_S


@pytest.mark.parametrize(
    ("taker", "name"),
    [
        (launch, "outage_s"),
        (worker, "outage_s"),
        (Launcher, "outage_s"),
        (WorkerOptions, "outage_s"),
        (Patience, "limit_s"),
    ],
)
def test_the_longest_outage(taker: Callable[..., Any], name: str) -> None:
    assert inspect.signature(taker).parameters[name].default is defaults.DEFAULT_LIMIT_S
