"""A launch that closes itself, and goes on when somebody asks: real processes around the fake objective."""

import os
import signal
from pathlib import Path

from conftest import Start
from making import make
from waiting import until
from watching import rows, waiting

from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.study import history

# No trial improves on the first by 90 points.
FLAT = ("stop.min_gain=0.9", "stop.patience=3")


def test_two_workers_close_it_and_a_person_opens_it(backend: Backend, database_url: str, start: Start) -> None:
    study = make(backend, trials=30, overrides=FLAT)
    began = start("launch", "tiny", "--workers", "2", AFFINITY_SEARCH_STORAGE=database_url)
    assert began.ended() == 0
    used = len(rows(study, PlaceState.COMPLETE))
    assert 4 <= used <= 6, "a second worker may have begun another trial or two"
    assert len(rows(study, PlaceState.CLOSED)) == 30 - used
    said = f"closed {30 - used} of 30 places: no gain of more than 0.9 of macro F1 in the last 3 trials; to go on: "
    assert said + "affinity-search launch tiny --trials 30" in began.said
    assert f"{used} of {used} trials done: {used} complete, 0 pruned, 0 failed" in began.said

    idle = start("launch", "tiny", "--workers", "2", AFFINITY_SEARCH_STORAGE=database_url)
    assert idle.ended() == 0
    assert said in idle.said
    assert len(study.optuna.trials) == used

    again = start("launch", "tiny", "--workers", "1", "--trials", "20", AFFINITY_SEARCH_STORAGE=database_url)
    assert again.ended() == 0
    assert f"{20 - used} closed places" in again.said
    assert len(rows(study, PlaceState.COMPLETE)) == used + 3, "the patience began anew"
    assert [event["kind"] for event in history(study)][-3:] == ["closed", "reopened", "closed"]


def test_a_worker_that_was_killed_does_not_keep_it_open(
    sqlite: Backend, sqlite_url: str, start: Start, tmp_path: Path
) -> None:
    """It holds a place when the others close the rest. Its launcher frees that place, and the next look closes it."""
    study, gate = make(sqlite, trials=30, overrides=FLAT), tmp_path / "gate"
    slow = start("worker", "tiny", "--storage", sqlite_url, "--lease-s", "2", FAKE_GATE=str(gate))
    until(lambda: len(waiting(study)) == 1, "a trial to wait at the gate")
    (held,) = waiting(study)
    began = start("launch", "tiny", "--workers", "1", "--storage", sqlite_url, "--lease-s", "2")
    until(lambda: bool(rows(study, PlaceState.CLOSED)), "the others to close the rest")
    os.kill(held.pid, signal.SIGKILL)
    assert began.ended() == 0
    assert slow.ended() != 0
    assert {row.state for row in rows(study)} == {PlaceState.COMPLETE, PlaceState.CLOSED}
    assert rows(study)[held.number].state == PlaceState.CLOSED
