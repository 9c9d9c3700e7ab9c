"""Who decides a study's precision: its file; else its launcher, by its devices; else its first worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from affinity_search.search import devices
from affinity_search.search.devices import nvidia
from affinity_search.search.devices.kinds import CPU, GPU, device_of

if TYPE_CHECKING:
    from affinity_search.search.devices.slots import Slot
    from affinity_search.storage.study import StoredStudy

Say = Callable[[str], None]


def settle_for(study: StoredStudy, slots: Sequence[Slot], say: Say) -> StoredStudy:
    """Settle a precision that suits all devices of a launch, before any worker starts. If that is unknown, the workers
    decide.
    """
    if study.precision is not None or not slots:
        return study
    kind, _ = device_of(slots[0].device)
    capability = _least_capability(slots) if kind is GPU else 0
    if kind is GPU and capability == 0:
        return study
    return settle(study, devices.precision_on(kind, capability, study.spec.network.widths), kind is CPU, say)


def settle(study: StoredStudy, precision: str, on_cpu: bool, say: Say) -> StoredStudy:
    """The study with its settled precision. A choice for a CPU is told, because GPUs may join later."""
    asked = study.spec.training.precision
    open_still = study.precision is None and asked == "auto"
    study = study.settle_precision(precision if asked == "auto" else asked)
    if open_still and on_cpu:
        say(
            f"precision {study.precision}, chosen for this CPU, now holds for every worker of the study; to choose "
            "another, for GPUs perhaps, create the study with --set training.precision=mixed_bfloat16 (or float32, "
            "mixed_float16)"
        )
    return study


def _least_capability(slots: Sequence[Slot]) -> int:
    known = {gpu.uuid: gpu.capability for gpu in nvidia.gpus()}
    return min(known.get(slot.uuid or "", 0) for slot in slots)
