"""The stand-in with which `make overhead` measures: a minute must come with all that a minute costs."""

from pathlib import Path

import numpy as np
import pytest

from affinity_search.search import devices
from affinity_search.search.training import checkpoints
from affinity_search.search.worker import checkpointing
from affinity_search.search.worker.checkpointing import Checkpointer
from benchmarks import stand_in
from benchmarks.overhead import RENEWALS, TRIAL_S
from benchmarks.stand_in import Minute, Trial, state_copier

devices.configure("cpu", 2)


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> Minute:
    """With a small state whose checkpoints take 50 ms."""
    monkeypatch.setattr(stand_in, "state_copier", lambda: lambda: {"weights": np.zeros(4)})
    monkeypatch.setattr(checkpointing, "time", checkpointing.time)  # put back afterwards
    monkeypatch.setattr(checkpoints, "save", lambda *what: made.skip(0.05))
    made = Minute(Trial(TRIAL_S, 20, RENEWALS))
    return made


def test_a_minute_s_checkpoints_are_written(minute: Minute, tmp_path: Path) -> None:
    """One waits 200 times its own 50 ms: every fourth epoch of 3 s, the first one among them."""
    checkpoint = Checkpointer(tmp_path / "0.npz", {}, pytest.fail)
    for _ in minute.epochs({}, 0):
        checkpoint.keep(minute.state())
    assert minute.copy.calls == 20
    assert minute.write.calls == 5


def test_a_minute_s_renewals(minute: Minute) -> None:
    renewed: list[int] = []
    reported: list[int] = []
    minute.renew = lambda: renewed.append(len(reported))
    for score in minute.epochs({}, 0):
        reported.append(score.epoch)  # noqa: PERF401 - one by one: `renew` looks at it meanwhile
    assert renewed == [6, 13, 19], "every 20 s"


def test_the_next_trial_is_better_than_the_last(minute: Minute) -> None:
    first, second = (list(minute.epochs({}, 0)) for _ in range(2))
    assert min(epoch.scores.macro_f1 for epoch in second) > 0.99
    for earlier, later in zip(first, second, strict=True):
        assert later.scores.macro_f1 > earlier.scores.macro_f1, "at every epoch: no pruner takes it"


def test_the_state_is_the_bundled_network_s() -> None:
    """Weights and both moments of Adam, 2.0 million floats each."""
    assert sum(np.asarray(value).nbytes for value in state_copier()().values()) == pytest.approx(24.0e6, rel=0.01)
