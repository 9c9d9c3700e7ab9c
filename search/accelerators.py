"""Which devices this machine has, found without importing TensorFlow: GPUs by NVML, TPUs by their device files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from studies.errors import AffinitySearchError


class NoSuchDeviceError(AffinitySearchError):
    """The devices asked for are not on this machine: the launcher starts no worker."""


@dataclass(frozen=True)
class Slot:
    """Room for one worker process: what people see, what it is told, and its environment."""

    label: str  # cpu, gpu:1, tpu
    device: str  # the worker's --device
    threads: int | None
    environment: dict[str, str]
    gpu: int | None = None  # NVML's index
    memory_mib: int | None = None  # its share of a GPU that it does not have for itself


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU, as NVML sees it."""

    name: str
    total_mib: int
    free_mib: int


# Of a GPU that several workers share, what stays for the driver and each process's own.
SHARED = 0.9
# Below it no network of ours finds room beside its images.
LEAST_FREE_MIB = 1024


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs, by index; empty without a driver. Honours no CUDA_VISIBLE_DEVICES.

    Raises:
        NoSuchDeviceError: the driver is there, but does not answer for every GPU.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_gpu(pynvml, pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise NoSuchDeviceError(f"NVML does not answer for every GPU ({error}); look at nvidia-smi") from error
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, handle: Any) -> Gpu:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(str(pynvml.nvmlDeviceGetName(handle)), memory.total >> 20, memory.free >> 20)


def gpu_names() -> list[str]:
    """Names of the NVIDIA GPUs, by index; as `gpus`."""
    return [gpu.name for gpu in gpus()]


def trouble(slot: Slot) -> str | None:
    """Why no worker can be started there now: its GPU is gone or full. None if all is well."""
    if slot.gpu is None:
        return None
    try:
        present = gpus()
    except NoSuchDeviceError as error:
        return str(error)
    if slot.gpu >= len(present):
        return f"{slot.label} has disappeared: NVML finds {len(present)} GPUs; look at nvidia-smi"
    free = present[slot.gpu].free_mib
    if free < LEAST_FREE_MIB:
        return f"{slot.label} is full: {free} MiB free of {present[slot.gpu].total_mib}; see nvidia-smi for who uses it"
    return None


def has_tpu() -> bool:
    """Whether this is a TPU VM (its device files), or a TPU is named in the environment."""
    return bool(os.environ.get("TPU_NAME")) or any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists()


def cpu_cores() -> int:
    """Cores this process may use: containers and `taskset` allow fewer than the machine has."""
    try:
        return len(psutil.Process().cpu_affinity())
    except AttributeError:  # macOS has no affinity
        return psutil.cpu_count() or 1


def plan(devices: str, workers: int | None, *, per_device: int = 1, tpus: Sequence[str] = ()) -> list[Slot]:
    """One slot for each worker: `devices` is auto, cpu, gpu, gpu:0,2 or tpu; `workers` counts CPU workers.

    `per_device` workers share each GPU; `tpus` names TPUs elsewhere, one worker each.

    Raises:
        NoSuchDeviceError: an unknown word, a GPU or TPU that is not there, or a count that the devices do not take.
    """
    if devices == "auto":
        devices = "tpu" if tpus else "gpu" if gpu_names() else "tpu" if has_tpu() else "cpu"
    kind, _, indices = devices.partition(":")
    if tpus and devices != "tpu":
        raise NoSuchDeviceError(f"--tpu {tpus[0]} given for {devices}; TPUs are named with --devices tpu")
    if per_device != 1 and kind != "gpu":
        raise NoSuchDeviceError(
            f"--workers-per-device {per_device} given for {devices}: only GPUs are shared; on a CPU use --workers"
        )
    if devices == "cpu":
        return _cpu_slots(workers or 1)
    slots = _gpu_slots(indices, per_device) if kind == "gpu" else _tpu_slots(tpus) if devices == "tpu" else None
    if slots is None:
        raise NoSuchDeviceError(f"devices {devices!r} given; allowed: auto, cpu, gpu, gpu:0,2 (by index) or tpu")
    if workers is not None and workers != len(slots):
        raise NoSuchDeviceError(
            f"--workers {workers} given for {devices}, where {len(slots)} run; --workers-per-device puts more on a GPU"
        )
    return slots


def one_device(asked: str) -> str:
    """What a command that trains in its own process takes: the first of this machine's best for auto, else `asked`."""
    return plan("auto", None)[0].device if asked == "auto" else asked


def _cpu_slots(workers: int) -> list[Slot]:
    if workers < 1:
        raise NoSuchDeviceError(f"--workers {workers} given; allowed: a whole number from 1")
    threads = max(1, cpu_cores() // workers)
    return [Slot("cpu", "cpu", threads, {"CUDA_VISIBLE_DEVICES": "-1"}) for _ in range(workers)]


def _gpu_slots(indices: str, per_device: int) -> list[Slot]:
    present = gpus()
    if not present:
        raise NoSuchDeviceError("no NVIDIA GPU found by NVML; check the driver with nvidia-smi, or use --devices cpu")
    chosen = _indices(indices, len(present)) if indices else list(range(len(present)))
    return [_gpu_slot(i, present[i], per_device) for i in chosen for _ in range(per_device)]


def _gpu_slot(index: int, gpu: Gpu, per_device: int) -> Slot:
    """The worker sees its GPU alone, as number 0, and of a shared one its part of the memory."""
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(index)}
    if per_device == 1:
        return Slot(f"gpu:{index}", "gpu:0", None, environment, index)
    share = SHARED / per_device
    environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{share:.3f}"  # JAX's; TensorFlow is told in MiB
    return Slot(f"gpu:{index}", "gpu:0", None, environment, index, int(gpu.total_mib * share))


def _indices(text: str, count: int) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not part.isdecimal() or int(part) >= count]
    if wrong or len(set(parts)) != len(parts):
        raise NoSuchDeviceError(f"gpu:{text} given; this machine has GPUs 0 to {count - 1}, each named once")
    return [int(part) for part in parts]


def _tpu_slots(names: Sequence[str]) -> list[Slot]:
    if names:
        return [Slot(f"tpu:{name}", "tpu", None, {"TPU_NAME": name}) for name in names]
    if not has_tpu():
        raise NoSuchDeviceError(
            "no TPU found: neither /dev/accel*, /dev/vfio/0 nor TPU_NAME; name one with --tpu, or use --devices cpu"
        )
    return [Slot("tpu", "tpu", None, {})]
