"""The NVIDIA GPUs of this machine: what NVML (the driver's library) tells about each, and which CUDA_VISIBLE_DEVICES
shows.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from affinity_search.studies.errors import AffinitySearchError

VISIBLE = "CUDA_VISIBLE_DEVICES"


class NoSuchDeviceError(AffinitySearchError):
    """This machine lacks the devices that were asked for. The launcher starts no worker."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as it is now, or a part of one (MIG). If NVML cannot read it, only its index is known."""

    index: int  # nvidia-smi's; when a card is lost, the next ones get other numbers
    uuid: str = ""
    name: str = ""
    total_mib: int = 0
    free_mib: int = 0
    lost: str | None = None  # why NVML cannot read it
    capability: int = 0  # compute capability, its first number; 0: NVML does not tell
    part: int | None = None  # of a GPU that is divided (MIG): which part, from 0

    @property
    def label(self) -> str:
        """What people call it."""
        return f"gpu:{self.index}" if self.part is None else f"gpu:{self.index}.{self.part}"


def gpus() -> list[Gpu]:
    """All GPUs by index, lost ones too. Empty without a driver. Does not look at CUDA_VISIBLE_DEVICES.

    In the place of a GPU that is divided (MIG) stand its parts.

    Raises:
        NoSuchDeviceError: the driver is there, but cannot even count them.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        whole = [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [part for gpu in whole for part in _parts(pynvml, gpu) or [gpu]]
    except pynvml.NVMLError as error:
        raise NoSuchDeviceError(f"NVML cannot count the GPUs ({error}); check the driver with nvidia-smi") from error
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, index: int) -> Gpu:
    """Each GPU is asked alone, so one that does not answer hides no other."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        uuid, name = _text(pynvml.nvmlDeviceGetUUID(handle)), _text(pynvml.nvmlDeviceGetName(handle))
    except pynvml.NVMLError as error:
        return Gpu(index, lost=str(error))
    return Gpu(index, uuid, name, memory.total >> 20, memory.free >> 20, capability=_capability(pynvml, handle))


def _parts(pynvml: Any, gpu: Gpu) -> list[Gpu]:
    """Of a divided GPU; else none. A driver or card that knows no parts answers with an error."""
    found: list[Gpu] = []
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
        if not pynvml.nvmlDeviceGetMigMode(handle)[0]:
            return []
        most = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except (pynvml.NVMLError, AttributeError):
        return []
    for number in range(most):
        try:
            part = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            memory, uuid = pynvml.nvmlDeviceGetMemoryInfo(part), _text(pynvml.nvmlDeviceGetUUID(part))
        except pynvml.NVMLError:  # fewer parts were made than there may be
            continue
        sizes = memory.total >> 20, memory.free >> 20
        found.append(Gpu(gpu.index, uuid, gpu.name, *sizes, capability=gpu.capability, part=len(found)))
    return found


def _capability(pynvml: Any, handle: Any) -> int:
    try:
        return int(pynvml.nvmlDeviceGetCudaComputeCapability(handle)[0])
    except (pynvml.NVMLError, AttributeError):  # older drivers, or versions of pynvml
        return 0


def _text(said: str | bytes) -> str:
    """Older versions of pynvml answer with bytes."""
    return said.decode() if isinstance(said, bytes) else said


def visible(present: Sequence[Gpu]) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES shows (by index or UUID), in its order. All if it is not set.

    It is read as CUDA does: up to the first entry that names no GPU. So "" and "-1" show none. An index of a divided
    GPU (MIG) shows its first part, as it does to CUDA.
    """
    listed = os.environ.get(VISIBLE)
    if listed is None:
        return list(present)
    found: list[Gpu] = []
    for entry in listed.split(","):
        gpu = _named(entry.strip(), present)
        if gpu is None or gpu in found:
            break
        found.append(gpu)
    return found


def _named(entry: str, present: Sequence[Gpu]) -> Gpu | None:
    if entry.isdecimal():
        fitting = [gpu for gpu in present if gpu.index == int(entry)][:1]
    else:
        fitting = [gpu for gpu in present if entry.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(entry)]
    return fitting[0] if len(fitting) == 1 else None


def _seen_as(device: str) -> Gpu | None:
    """The GPU that this process calls `device`; None if it is no GPU, or NVML is silent."""
    kind, _, index = device.partition(":")
    try:
        here = visible(gpus()) if kind == "gpu" else []
    except NoSuchDeviceError:
        return None
    return here[int(index or 0)] if int(index or 0) < len(here) else None


def free_mib(device: str) -> int | None:
    """The free memory of the GPU that this process calls `device`, in MiB; None if it is no GPU, or NVML is silent."""
    gpu = _seen_as(device)
    return gpu.free_mib if gpu else None


def watts(device: str) -> float | None:
    """What the GPU that this process calls `device` draws now; None if it is no GPU, or NVML is silent."""
    import pynvml

    gpu = _seen_as(device)
    if gpu is None:
        return None
    try:
        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetPowerUsage(pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid))) / 1000
    except pynvml.NVMLError:
        return None


def card(device: str) -> str | None:
    """The GPU that this process calls `device` (gpu:K), in words that are the same in all processes.

    Its UUID; if NVML does not answer, host and number. None if it is no GPU. Ask before a backend starts: that may set
    CUDA_VISIBLE_DEVICES.
    """
    kind, _, index = device.partition(":")
    if kind != "gpu":
        return None
    try:
        uuids = [gpu.uuid for gpu in visible(gpus())]
    except NoSuchDeviceError:
        uuids = []
    known = uuids[int(index)] if index.isdecimal() and int(index) < len(uuids) else ""
    return known or f"{socket.gethostname()} {os.environ.get(VISIBLE, 'all')} {device}"
