"""How far a search is, and a clock that is moved by hand."""

import re
from pathlib import Path

from conftest import Started

from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.place import HeldPlace, Place
from affinity_search.storage.places.recovery import Recovery
from affinity_search.storage.study import StoredStudy


def waiting(study: StoredStudy) -> list[HeldPlace]:
    """The held places whose trial has reported an epoch."""
    reported = {t.number for t in study.optuna.get_trials(deepcopy=False) if t.intermediate_values}
    return [place for place in Places.of(study).held() if place.trial in reported]


def rows(study: StoredStudy, *states: PlaceState) -> list[Place]:
    return Places.of(study).rows(*states)


def logs(launch: Started) -> Path:
    found = re.search(r"logs in (\S+)", launch.said)
    assert found, launch.said
    return Path(found[1])


LEASE_S = 0.2


class FakeClock:
    """The observer's own clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def watch(recovery: Recovery, clock: FakeClock, seconds: float, step: float = LEASE_S / 5) -> list[str]:
    """Look again and again for that long."""
    lines = recovery.look()
    for _ in range(round(seconds / step)):
        clock.now += step
        lines += recovery.look()
    return lines
