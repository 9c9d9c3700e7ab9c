"""Stands in for a minute of training: no time is spent on it, but all that the service does beside it is real.

The training state is that of the bundled CIFAR-10 network, copied from the backend after every epoch as a training
copies it; the checkpointer's clock goes on by an epoch's share of the minute, so that it writes as often as it would;
the lease is renewed as often as in a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from fake_objective import FakeTrainer
from numpy.typing import NDArray

from affinity_search.search import devices
from affinity_search.search.training import checkpoints
from affinity_search.search.training.checkpoints import TrainingState
from affinity_search.search.training.heads.affinity_diagnostics import Diagnostics
from affinity_search.search.training.metrics import Scores
from affinity_search.search.training.results import EpochScore
from affinity_search.search.worker import checkpointing
from affinity_search.studies.data import SOURCES
from affinity_search.studies.files import load

CLASS_SIZES = (800, 4_000) * 5  # CIFAR-10, n = 200, 0.2 of them for validation
MATRIX = tuple(tuple(180 if row == column else 2 for column in range(10)) for row in range(10))
SCORES = Scores(0.5, 0.5, (0.5,) * 10, (200, 1_000) * 5, 0.5, 0.5, MATRIX)
DIAGNOSTICS = Diagnostics(1.2, 0.3, 0.5, (3, 2) * 5, 30, 1.0, 2.0, 0.5)


class Timed:
    """A function whose calls are timed: when each began, by `time.perf_counter`, and how long it took."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.began: list[float] = []
        self.took_s: list[float] = []

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        self.began.append(began)
        try:
            return self._function(*arguments, **options)
        finally:
            self.took_s.append(time.perf_counter() - began)

    @property
    def calls(self) -> int:
        return len(self.took_s)

    @property
    def seconds(self) -> float:
        """Of all calls."""
        return sum(self.took_s)


class SkippingClock:
    """The clock, and whatever was skipped."""

    def __init__(self) -> None:
        self.skipped_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped_s


def state_copier() -> Callable[[], Mapping[str, NDArray[Any]]]:
    """What copies the state of the bundled CIFAR-10 network to the host, with room for its study's most centres.

    The device must have been configured.
    """
    spec = load("cifar10")
    from affinity_search.search.training.data.splits import Split
    from affinity_search.search.training.fit import Trainer, TrainingConfig
    from affinity_search.search.training.networks.building import NetworkConfig

    few = Split(np.zeros((10, 32, 32, 3), np.uint8), np.arange(10, dtype=np.int32))
    network, training = spec.network, spec.training
    layout = NetworkConfig(tuple(network.widths), network.depth, network.batch_norm_momentum, network.head)
    config = TrainingConfig(training.epochs, training.batch, training.learning_rate, augment=training.augment)
    return Trainer(devices.current(), few, few, SOURCES["cifar10"], layout, config, spec.max_centers)._variables


@dataclass(frozen=True)
class Trial:
    """How long a trial seems to take, and how often it reports and renews its lease in that time."""

    seconds: float
    epochs: int
    renewals: int


class Minute(FakeTrainer):
    """In place of the worker's StudyTrainer; each trial is better than all before it, so that none is pruned."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._trained = 0
        self._clock = SkippingClock()
        copier = state_copier()
        self.state_mb = sum(np.asarray(value).nbytes for value in copier().values()) / 1e6
        self.copy = Timed(copier)
        self.write = Timed(checkpoints.save)
        self.renew: Callable[[], None] = lambda: None
        checkpointing.time = self._clock  # type: ignore[assignment]
        checkpoints.save = self.write

    def skip(self, seconds: float) -> None:
        """For the checkpointer so much time has passed."""
        self._clock.skipped_s += seconds

    def epochs(self, *args: Any, **options: Any) -> Iterator[EpochScore]:
        trial = self._trial
        self._trained += 1
        self.done = []
        for epoch in range(trial.epochs):
            self.skip(trial.seconds / trial.epochs)
            if epoch * trial.renewals // trial.epochs < (epoch + 1) * trial.renewals // trial.epochs:
                self.renew()
            scores = replace(SCORES, macro_f1=1 - 1e-3 / (epoch + 1) / self._trained)
            self.done.append(EpochScore(epoch, 0.5, scores, trial.seconds / trial.epochs, DIAGNOSTICS))
            yield self.done[-1]

    def state(self) -> TrainingState:
        return TrainingState(tuple(self.done), self.copy())
