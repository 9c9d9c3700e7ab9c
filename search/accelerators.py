"""Which devices this machine has, found without importing TensorFlow: GPUs by NVML, TPUs by their device files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

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


def gpu_names() -> list[str]:
    """Names of the NVIDIA GPUs, by index; empty without a driver. Honours no CUDA_VISIBLE_DEVICES."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    finally:
        pynvml.nvmlShutdown()


def has_tpu() -> bool:
    """Whether this is a TPU VM (its device files), or a TPU is named in the environment."""
    return bool(os.environ.get("TPU_NAME")) or any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists()


def cpu_cores() -> int:
    """Cores this process may use: containers and `taskset` allow fewer than the machine has."""
    try:
        return len(psutil.Process().cpu_affinity())
    except AttributeError:  # macOS has no affinity
        return psutil.cpu_count() or 1


def plan(devices: str, workers: int | None) -> list[Slot]:
    """One slot for each worker: `devices` is auto, cpu, gpu, gpu:0,2 or tpu; `workers` counts CPU workers.

    Raises:
        NoSuchDeviceError: an unknown word, a GPU or TPU that is not there, or `workers` given for accelerators.
    """
    if devices == "auto":
        devices = "gpu" if gpu_names() else "tpu" if has_tpu() else "cpu"
    if devices == "cpu":
        return _cpu_slots(workers or 1)
    kind, _, indices = devices.partition(":")
    slots = _gpu_slots(indices) if kind == "gpu" else _tpu_slots() if devices == "tpu" else None
    if slots is None:
        raise NoSuchDeviceError(f"devices {devices!r} given; allowed: auto, cpu, gpu, gpu:0,2 (by index) or tpu")
    if workers is not None and workers != len(slots):
        raise NoSuchDeviceError(f"--workers {workers} given for {devices}: one worker runs on each of {len(slots)}")
    return slots


def _cpu_slots(workers: int) -> list[Slot]:
    if workers < 1:
        raise NoSuchDeviceError(f"--workers {workers} given; allowed: a whole number from 1")
    threads = max(1, cpu_cores() // workers)
    return [Slot("cpu", "cpu", threads, {"CUDA_VISIBLE_DEVICES": "-1"}) for _ in range(workers)]


def _gpu_slots(indices: str) -> list[Slot]:
    names = gpu_names()
    if not names:
        raise NoSuchDeviceError("no NVIDIA GPU found by NVML; check the driver with nvidia-smi, or use --devices cpu")
    chosen = _indices(indices, len(names)) if indices else list(range(len(names)))
    # The worker sees its GPU alone, as number 0.
    return [
        Slot(f"gpu:{i}", "gpu:0", None, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(i)})
        for i in chosen
    ]


def _indices(text: str, count: int) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not part.isdecimal() or int(part) >= count]
    if wrong or len(set(parts)) != len(parts):
        raise NoSuchDeviceError(f"gpu:{text} given; this machine has GPUs 0 to {count - 1}, each named once")
    return [int(part) for part in parts]


def _tpu_slots() -> list[Slot]:
    if not has_tpu():
        raise NoSuchDeviceError("no TPU found: neither /dev/accel*, /dev/vfio/0 nor TPU_NAME; or use --devices cpu")
    return [Slot("tpu", "tpu", None, {})]
