"""What holds where nobody says otherwise is said in one place."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from affinity_search import storage
from affinity_search.search.cli.commands.launch import launch
from affinity_search.search.cli.commands.worker import worker
from affinity_search.search.launch.launcher import Launcher
from affinity_search.search.worker.setup import WorkerOptions
from affinity_search.storage.database.patience import Patience
from affinity_search.storage.places.claims import Places


@pytest.mark.parametrize("taker", [launch, worker, Launcher, WorkerOptions, Places.of])
def test_the_lease(taker: Callable[..., Any]) -> None:
    assert inspect.signature(taker).parameters["lease_s"].default is storage.DEFAULT_LEASE_S


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
    assert inspect.signature(taker).parameters[name].default is storage.DEFAULT_LIMIT_S
