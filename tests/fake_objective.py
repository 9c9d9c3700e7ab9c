"""A fake that stands in for Keras at the hardware's edge: training becomes arithmetic, everything around it is real.

Worker processes are told by the environment how to behave:
  FAKE_GATE       a path: after its first epoch every training waits until that file exists, or until asked to stop
  FAKE_DIVERGING  trial seeds whose loss becomes NaN in the first epoch
  FAKE_BROKEN     trial seeds whose training raises an error that nobody foresaw
  FAKE_DEAD       a worker ends with these last words before it claims anything
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import until

from search.training.errors import DivergedError, TrainingInterrupted

N_CLASSES = 10


@dataclass(frozen=True)
class FakeScores:
    """Looks like training's Scores, without scikit-learn."""

    macro_f1: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "macro_f1": self.macro_f1,
            "micro_f1": 1 - (1 - self.macro_f1) / 3,
            "per_class_f1": [self.macro_f1] * N_CLASSES,
        }


@dataclass(frozen=True)
class FakeEpoch:
    epoch: int
    scores: FakeScores
    loss: float = 0.5
    duration_s: float = 0.001


@dataclass(frozen=True)
class FakeResult:
    epochs: tuple[FakeEpoch, ...]

    @property
    def best(self) -> FakeEpoch:
        return max(self.epochs, key=lambda epoch: epoch.scores.macro_f1)

    @property
    def value(self) -> float:
        return 1.0 - self.best.scores.macro_f1


def fake_macro_f1(params: dict[str, float | int], seed: int, epoch: int) -> float:
    """Any number will do, as long as it depends on these three alone, and later epochs are better."""
    return random.Random(f"{sorted(params.items())}/{seed}").random() * (epoch + 1) / (epoch + 2)


class FakeObjective:
    """In place of search.objective.Objective."""

    def __init__(self, spec: Any, precision: str, data_dir: Path | None) -> None:
        self.epochs = spec.training.epochs
        self.test_is_open = False
        self.last: tuple[dict[str, float | int], int] | None = None

    def run(
        self,
        params: dict[str, float | int],
        seed: int,
        on_epoch: Callable[[Any], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        *,
        max_centers: int | None = None,
        restore_best: bool = False,
    ) -> FakeResult:
        self.last = (params, seed)
        self._misbehave(seed)
        done = []
        for epoch in range(self.epochs):
            if epoch == 1:
                self._wait_at_gate(should_stop)
            if should_stop and should_stop():
                raise TrainingInterrupted("asked to stop")
            done.append(FakeEpoch(epoch, FakeScores(fake_macro_f1(params, seed, epoch))))
            if on_epoch:
                on_epoch(done[-1])
        return FakeResult(tuple(done))

    def open_test(self) -> None:
        self.test_is_open = True

    def score_test(self) -> dict[str, Any]:
        assert self.test_is_open, "only `evaluate` opens the test set"
        assert self.last is not None
        return FakeScores(fake_macro_f1(*self.last, epoch=50)).to_dict()

    def _misbehave(self, seed: int) -> None:
        if str(seed) in os.environ.get("FAKE_DIVERGING", "").split():
            raise DivergedError(0, float("nan"))
        if str(seed) in os.environ.get("FAKE_BROKEN", "").split():
            raise RuntimeError("the fake card fell off the bus")

    def _wait_at_gate(self, should_stop: Callable[[], bool] | None) -> None:
        gate = os.environ.get("FAKE_GATE")
        if gate:
            until(lambda: Path(gate).exists() or (should_stop is not None and should_stop()), "the gate to open")


def fake_configure(device: str, threads: int | None = None) -> None:
    """In place of search.devices.configure, which imports TensorFlow."""
    if last_words := os.environ.get("FAKE_DEAD"):
        print(f"worker begins\n{last_words}", file=sys.stderr, flush=True)
        os._exit(3)


def install(replace: Callable[[str, object], None]) -> None:
    """Put the fakes in their places; `replace` is monkeypatch.setattr, or `replace_for_good`."""
    replace("search.worker.Objective", FakeObjective)
    replace("search.evaluation.Objective", FakeObjective)
    replace("search.devices.configure", fake_configure)


def replace_for_good(target: str, value: object) -> None:
    """For a process of its own."""
    module, _, name = target.rpartition(".")
    __import__(module)
    setattr(sys.modules[module], name, value)
