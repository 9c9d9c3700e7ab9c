"""A real PostgreSQL is stopped in the middle of trials and started again: nobody dies, nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Start
from making import make
from optuna.trial import TrialState
from postgres_server import Restartable, Unavailable, restartable_server
from waiting import until
from watching import logs, waiting

from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import load_study

EPOCHS = 6


@pytest.fixture
def own() -> Iterator[Restartable]:
    """A server of this test's own."""
    try:
        with restartable_server() as server:
            yield server
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_reports_wait_for_the_database_and_arrive(own: Restartable, start: Start, tmp_path: Path) -> None:
    url, gate = own.server.url("postgres"), tmp_path / "gate"
    study = make(open_backend(url, create=True), overrides=[f"training.epochs={EPOCHS}"])
    launch = start("launch", "tiny", "--workers", "2", AFFINITY_SEARCH_STORAGE=url, FAKE_GATE=str(gate))
    until(lambda: len(waiting(study)) == 2, "two trials to wait at the gate")

    own.stop()
    gate.touch()  # they train on to their last epoch without a database
    until(lambda: told(logs(launch)) == 2, "both workers to wait for the database")
    own.start()
    assert launch.ended() == 0

    study = load_study(open_backend(url, create=False), "tiny")
    rows = Places.of(study).rows()
    assert [(row.state, row.attempt) for row in rows] == [(PlaceState.COMPLETE, 1)] * 4
    trials = study.optuna.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4, "no worker died, no trial was begun again"
    assert [sorted(trial.intermediate_values) for trial in trials] == [list(range(EPOCHS))] * 4
    study.backend.close()


def told(folder: Path) -> int:
    """How many workers have said that the storage is away."""
    return sum("the storage is away" in log.read_text() for log in folder.iterdir())
