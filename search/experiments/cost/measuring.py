"""Measures on this machine how fast workers train, by a few seconds of real training in as many processes at once.

`python -m affinity_search.search.experiments.cost.measuring` is one of these processes: it reads what to train from
stdin, and prints one JSON line for each study.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from affinity_search.search.launch.children import SAFE, surroundings
from affinity_search.studies.errors import AffinitySearchError
from affinity_search.studies.model.parameters import Params
from affinity_search.studies.model.spec import StudySpec

if TYPE_CHECKING:
    from affinity_search.search.devices.slots import Slot
    from affinity_search.search.worker.study_trainer import StudyTrainer

MEASURE_S = 4.0  # after the compilation
ENOUGH_EPOCHS = 4
SHORT_S = 2.0  # an epoch: with longer ones the pause between two trials does not matter
MOST_PROCESSES = 16  # at once


class CannotMeasureError(AffinitySearchError):
    """A process that was to measure has ended with an error; the message is its own."""


@dataclass(frozen=True)
class Speed:
    """Of one worker beside all others. Means over the processes that were measured at once."""

    process_s: float  # from its start until its imports are done
    setup_s: float  # then, for each study, until the first step: data and compilation
    epoch_s: float  # of training and scoring
    trial_s: float  # between two trials
    memory_mib: float | None  # of a GPU where it trains on one, else of the machine; the greatest
    watts: float | None = None  # of its GPU; None where nobody tells

    @classmethod
    def of(cls, each: Sequence[dict[str, Any]]) -> Self:
        """Of what the processes have printed about one study."""
        means = {
            key: statistics.fmean(one[key] for one in each) for key in ("process_s", "setup_s", "epoch_s", "trial_s")
        }
        watts = [one["watts"] for one in each if one["watts"] is not None]
        memory = max(one["memory_mib"] for one in each)
        return cls(**means, memory_mib=memory, watts=statistics.fmean(watts) if watts else None)


def speeds(specs: Sequence[StudySpec], slots: Sequence[Slot], data_dir: Path | None) -> list[Speed]:
    """How fast a worker in each slot trains each study while the others train too.

    Raises:
        CannotMeasureError: the studies cannot be trained here: the data or the device is missing, or has no room.
    """
    wanted = {"specs": [spec.to_dict() for spec in specs], "data_dir": None if data_dir is None else str(data_dir)}
    processes = [_started(slot) for slot in slots[:MOST_PROCESSES]]
    try:
        for process, slot in zip(processes, slots, strict=False):
            assert process.stdin is not None
            own = {"device": slot.device, "threads": slot.threads, "memory_mib": slot.memory_mib}
            process.stdin.write(json.dumps(wanted | own))
            process.stdin.close()
        told = [_answer(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [Speed.of(each) for each in zip(*told, strict=True)]


def _started(slot: Slot) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, SAFE, "-m", __name__],
        env=surroundings() | slot.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _answer(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    process.wait()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    if told and "error" in told[-1]:
        raise CannotMeasureError(told[-1]["error"])
    if process.returncode:
        raise CannotMeasureError(f"a process that measures ended with code {process.returncode}; see: doctor")
    return told


def main() -> None:
    """One of the processes. An error that a person can mend is printed; others end it."""
    from affinity_search.search.devices.errors import TrainingError

    wanted = json.loads(sys.stdin.read())
    data_dir = Path(wanted["data_dir"]) if wanted["data_dir"] else None
    try:
        for plain in wanted["specs"]:
            print(json.dumps(measure(StudySpec.from_dict(plain), wanted, data_dir)), flush=True)
    except (AffinitySearchError, TrainingError) as error:
        print(json.dumps({"error": str(error)}), flush=True)


def measure(spec: StudySpec, how: dict[str, Any], data_dir: Path | None) -> dict[str, Any]:
    """The fields of `Speed`, of this process. `how` has `device`, `threads` and `memory_mib` of its slot.

    Raises:
        DataError, DeviceError, OutOfMemoryError: this machine cannot train the study.
    """
    from affinity_search.search import devices
    from affinity_search.search.devices.nvidia import watts
    from affinity_search.search.devices.packages import UNNEEDED, without
    from affinity_search.search.worker.images import folder_for
    from affinity_search.search.worker.loop import process_age_s
    from affinity_search.search.worker.study_trainer import StudyTrainer

    with without(*UNNEEDED):  # as a worker does
        claimed = devices.configure(how["device"], how["threads"], how["memory_mib"])
    from affinity_search.search.training import fit  # noqa: F401 - Keras and its backend, once for all studies

    began, process_s = time.time(), process_age_s()
    precision = claimed.settle_precision(spec.training.precision, spec.network.widths)
    trainer = StudyTrainer(claimed, spec, precision, folder_for(spec, data_dir, None, lambda _: None))
    stepped, epoch_s = _training(trainer, spec)
    found = {"process_s": process_s, "setup_s": stepped - began, "epoch_s": epoch_s, "watts": watts(how["device"])}
    pause_s = max(0.0, _first_epoch_s(trainer, spec) - epoch_s) if epoch_s < SHORT_S else 0.0
    peak = claimed.peak_memory()
    memory = (_resident() if peak is None else peak) / 2**20
    return found | {"trial_s": pause_s, "memory_mib": memory}


def _resident() -> int:
    """Bytes that this process has used at most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _training(trainer: StudyTrainer, spec: StudySpec) -> tuple[float, float]:
    """When the first steps were done, and the seconds of an epoch, from a few seconds of training."""
    from affinity_search.search.training.errors import TrainingInterrupted

    seen: list[tuple[float, float]] = []  # when, and how much of the first epoch was done

    def look() -> bool:
        seen.append((time.time(), trainer.epoch_share))
        return seen[-1][0] - seen[0][0] > MEASURE_S  # the first call comes after the compilation

    whole: list[float] = []
    try:
        for score in trainer.epochs(some_settings(spec), 0, should_stop=look, max_centers=spec.max_centers):
            whole.append(score.duration_s)
            if len(whole) > ENOUGH_EPOCHS and seen[-1][0] - seen[0][0] > MEASURE_S / 2:
                break
    except TrainingInterrupted:
        pass
    stepped, (ended, share_after), share_before = seen[0][0], seen[-1], seen[0][1]
    if len(whole) > 1:
        return stepped, statistics.median(whole[1:])
    if whole or share_after <= share_before:
        return stepped, whole[0] if whole else ended - stepped
    return stepped, (ended - stepped) / (share_after - share_before)


def _first_epoch_s(trainer: StudyTrainer, spec: StudySpec) -> float:
    """Of a further trial: from its beginning to the end of its first epoch."""
    began = time.perf_counter()
    for _ in trainer.epochs(some_settings(spec), 1, max_centers=spec.max_centers):
        break
    return time.perf_counter() - began


def some_settings(spec: StudySpec) -> Params:
    """A point of the study's space, as random search draws its first one."""
    import optuna

    from affinity_search.storage.trials.sampling import study_of_nothing, suggest

    if spec.space is None:
        return {}
    study = study_of_nothing(sampler=optuna.samplers.RandomSampler(seed=0))
    return suggest(study.ask(), spec.space)


if __name__ == "__main__":
    main()
