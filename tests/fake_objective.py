"""A fake that stands in for Keras at the hardware's edge: training becomes arithmetic, everything around it is real.

Worker processes are told by the environment how to behave:
  FAKE_GATE       a path: after its first epoch every training waits until that file exists, or until asked to stop
  FAKE_DIVERGING  trial seeds whose loss becomes NaN in the first epoch
  FAKE_FULL       trial seeds that run out of memory
  FAKE_FULL_CARD  the CUDA_VISIBLE_DEVICES whose every training runs out of memory
  FAKE_FULL_AFTER the number of trainings in one process after which the next one runs out of memory
  FAKE_BROKEN     trial seeds whose training raises an error that nobody foresaw
  FAKE_KILLED     the kernel kills the worker when it has claimed a place and begins to train
  FAKE_STUCK      the second epoch is one call into C that answers no signal for a minute
  FAKE_LOST_CARD  the CUDA_VISIBLE_DEVICES whose worker finds no card
  FAKE_DEAD       a worker ends with these last words before it claims anything
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from waiting import until

from affinity_search.search.devices.device import Device, Wanted
from affinity_search.search.devices.errors import DeviceError
from affinity_search.search.devices.tensorflow.device import TensorFlowDevice
from affinity_search.search.training.checkpoints import TrainingState
from affinity_search.search.training.errors import DivergedError, OutOfMemoryError, TrainingInterrupted
from affinity_search.search.training.metrics import Scores
from affinity_search.search.training.results import EpochScore

N_CLASSES = 10
UNCLAIMED: Device = TensorFlowDevice(Wanted())  # a CPU, and no TensorFlow


def fake_scores(macro_f1: float) -> Scores:
    """Looks like a model that is as good at every class."""
    each = (macro_f1,) * N_CLASSES
    return Scores(macro_f1, 1 - (1 - macro_f1) / 3, each, (1,) * N_CLASSES, macro_f1, macro_f1, ((0,),))


def fake_macro_f1(params: dict[str, float | int], seed: int, epoch: int) -> float:
    """Any number will do, as long as it depends on these three alone, and later epochs are better."""
    return random.Random(f"{sorted(params.items())}/{seed}").random() * (epoch + 1) / (epoch + 2)


class FakeTrainer:
    """In place of affinity_search.search.worker.study_trainer.StudyTrainer."""

    image_bytes = 0

    def __init__(self, device: Device, spec: Any, precision: str, data_dir: Path | None, *, seen: Any = None) -> None:
        self.n_epochs = spec.training.epochs
        self.done: list[EpochScore] = []
        self.class_sizes = (1,) * N_CLASSES
        self.minority = (True, False) * (N_CLASSES // 2)
        self.note = None
        self.test_is_open = False
        self.draw = 0
        self.begun = 0
        self.epoch_share = 0.0
        self.last: tuple[dict[str, float | int], int] | None = None

    def epochs(
        self,
        params: dict[str, float | int],
        seed: int,
        *,
        should_stop: Callable[[], bool] | None = None,
        max_centers: int | None = None,
        resume: TrainingState | None = None,
        runs: int = 1,
    ) -> Iterator[EpochScore]:
        self.last = (params, seed)
        self._misbehave(seed)
        self.done = list(resume.epochs) if resume else []
        resumed = len(self.done)
        for epoch in range(self.n_epochs * runs):
            if epoch == 1 and epoch >= resumed:
                self._wait_at_gate(should_stop)
                self._get_stuck()
            if should_stop and should_stop():
                raise TrainingInterrupted("asked to stop")
            if epoch >= resumed:
                run, within = divmod(epoch, self.n_epochs)
                scores = fake_scores(fake_macro_f1(params, seed + run, within))
                self.done.append(EpochScore(epoch, 0.5, scores, 0.001, run=run))
            yield self.done[epoch]

    def state(self) -> TrainingState:
        return TrainingState(tuple(self.done), {})

    def go_back(self, state: TrainingState) -> None:
        self.done = list(state.epochs)

    def use_draw(self, draw: int) -> None:
        self.draw = draw

    def open_test(self) -> None:
        self.test_is_open = True

    def score_test(self) -> dict[str, Any]:
        assert self.test_is_open, "only `evaluate` opens the test set"
        assert self.last is not None
        scores = fake_scores(fake_macro_f1(*self.last, epoch=50)).to_dict()
        return scores | {"plain": scores}

    def _misbehave(self, seed: int) -> None:
        if str(seed) in os.environ.get("FAKE_DIVERGING", "").split():
            raise DivergedError(0, float("nan"))
        if os.environ.get("FAKE_KILLED"):
            os.kill(os.getpid(), signal.SIGKILL)
        if str(seed) in os.environ.get("FAKE_FULL", "").split():
            raise OutOfMemoryError("the fake card is full")
        if os.environ.get("FAKE_FULL_CARD", "none") == os.environ.get("CUDA_VISIBLE_DEVICES"):
            raise OutOfMemoryError("the fake card is always full")
        self.begun += 1
        if self.begun - 1 == int(os.environ.get("FAKE_FULL_AFTER", "-1")):
            raise OutOfMemoryError("somebody else has filled the fake card")
        if str(seed) in os.environ.get("FAKE_BROKEN", "").split():
            raise RuntimeError("the fake card fell off the bus")

    def _get_stuck(self) -> None:
        if os.environ.get("FAKE_STUCK"):
            print("the fake card hangs in a step", file=sys.stderr, flush=True)
            ctypes.CDLL(None).usleep(60_000_000)
            ctypes.CDLL(None).usleep(60_000_000)

    def _wait_at_gate(self, should_stop: Callable[[], bool] | None) -> None:
        gate = os.environ.get("FAKE_GATE")
        if gate:
            until(lambda: Path(gate).exists() or (should_stop is not None and should_stop()), "the gate to open")


def fake_configure(device: str, threads: int | None = None, memory_mib: int | None = None) -> Device:
    """In place of affinity_search.search.devices.configure, which imports TensorFlow."""
    if os.environ.get("FAKE_LOST_CARD", "none") == os.environ.get("CUDA_VISIBLE_DEVICES"):
        raise DeviceError("the fake card is lost")
    if last_words := os.environ.get("FAKE_DEAD"):
        print(f"worker begins\n{last_words}", file=sys.stderr, flush=True)
        os._exit(3)
    return UNCLAIMED


class FakeReporter:
    """In place of the launcher's Reporter: its figures would take longer than all of a fake search."""

    def __init__(self, study: Any) -> None:
        pass

    def write(self) -> bool:
        return False


def install(replace: Callable[[str, object], None]) -> None:
    """Put the fakes in their places; `replace` is monkeypatch.setattr, or `replace_for_good`."""
    replace("affinity_search.search.worker.setup.StudyTrainer", FakeTrainer)
    replace("affinity_search.search.devices.configure", fake_configure)
    replace("affinity_search.search.view.publishing.Reporter", FakeReporter)


def begin_nothing_ahead(replace: Callable[[str, object], None]) -> None:
    """A launch of the tests imports TensorFlow in no process ahead of its study; `test_ahead.py` alone has that."""
    replace("affinity_search.search.launch.ahead.cpu_cores", lambda: 1)


def replace_for_good(target: str, value: object) -> None:
    """For a process of its own."""
    module, _, name = target.rpartition(".")
    __import__(module)
    setattr(sys.modules[module], name, value)
