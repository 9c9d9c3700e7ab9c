"""What a comparison costs: runs, epochs, and hours from a few measured steps on one device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from affinity_search.studies.comparisons import ComparisonSpec
from affinity_search.studies.model.parameters import Params
from affinity_search.studies.model.spec import StudySpec

MEASURE_S = 4.0  # after the compilation
ENOUGH_EPOCHS = 3


@dataclass(frozen=True)
class Cost:
    """What one contestant at one level would train. `epoch_s` is measured with one worker on one device."""

    contestant: str
    level: str
    searched: int  # places
    judged: int  # final runs
    epochs: int  # of each at most: a pruner may stop a search's trial earlier
    epoch_s: float | None  # None: not measured

    @property
    def most_epochs(self) -> int:
        return (self.searched + self.judged) * self.epochs

    @property
    def most_s(self) -> float | None:
        """Of one worker, without pruning."""
        return None if self.epoch_s is None else self.most_epochs * self.epoch_s


def costs(spec: ComparisonSpec, device: str | None, threads: int | None, data_dir: Path | None) -> list[Cost]:
    """One for each search. Each contestant's epoch is measured once, at its first level; without a device none is.

    Raises:
        DataError, DeviceError: this machine cannot train it.
    """
    measured: dict[str, float] = {}
    found = []
    for entry in spec.entries:
        if device is not None and entry.contestant not in measured:
            measured[entry.contestant] = measure(entry.spec, device, threads, data_dir)
        found.append(
            Cost(
                entry.contestant,
                entry.level_text,
                entry.spec.trials,
                spec.draws,
                entry.spec.training.epochs,
                measured.get(entry.contestant),
            )
        )
    return found


def measure(spec: StudySpec, device: str, threads: int | None, data_dir: Path | None) -> float:
    """Seconds that an epoch of the study takes here, from a few seconds of training at some settings of its space."""
    from affinity_search.search import devices
    from affinity_search.search.training.errors import TrainingInterrupted
    from affinity_search.search.worker.images import folder_for
    from affinity_search.search.worker.study_trainer import StudyTrainer

    claimed = devices.configure(device, threads)
    precision = claimed.settle_precision(spec.training.precision, spec.network.widths)
    trainer = StudyTrainer(claimed, spec, precision, folder_for(spec, data_dir, None, lambda _: None))
    seen: list[tuple[float, float]] = []  # when, and how much of the first epoch was done

    def look() -> bool:
        seen.append((time.perf_counter(), trainer.epoch_share))
        return seen[-1][0] - seen[0][0] > MEASURE_S  # the first call comes after the compilation

    whole: list[float] = []
    try:
        for score in trainer.epochs(some_settings(spec), 0, should_stop=look, max_centers=spec.max_centers):
            whole.append(score.duration_s)
            if len(whole) > ENOUGH_EPOCHS:
                break
    except TrainingInterrupted:
        pass
    if len(whole) > 1:
        return statistics.median(whole[1:])
    (began, share_before), (ended, share_after) = seen[0], seen[-1]
    if whole or share_after <= share_before:
        return whole[0] if whole else ended - began
    return (ended - began) / (share_after - share_before)


def some_settings(spec: StudySpec) -> Params:
    """A point of the study's space, as random search draws its first one."""
    import optuna

    from affinity_search.storage.trials.sampling import study_of_nothing, suggest

    if spec.space is None:
        return {}
    study = study_of_nothing(sampler=optuna.samplers.RandomSampler(seed=0))
    return suggest(study.ask(), spec.space)


def total_s(found: Sequence[Cost], workers: int) -> float | None:
    """How long so many workers take at most, if each is as fast as the measured one."""
    seconds = [each.most_s for each in found]
    known = [each for each in seconds if each is not None]
    return sum(known) / workers if len(known) == len(seconds) else None
