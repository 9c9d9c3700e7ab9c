"""The NVIDIA GPUs of this machine: what NVML tells of each, and which of them CUDA_VISIBLE_DEVICES leaves to us."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from affinity_search.studies.errors import AffinitySearchError

VISIBLE = "CUDA_VISIBLE_DEVICES"


class NoSuchDeviceError(AffinitySearchError):
    """The devices asked for are not on this machine: the launcher starts no worker."""


@dataclass(frozen=True)
class Gpu:
    """A GPU at the moment of asking; of one that NVML cannot read, no more than its index is known."""

    index: int  # nvidia-smi's; the next ones' change when a card falls off the bus
    uuid: str = ""
    name: str = ""
    total_mib: int = 0
    free_mib: int = 0
    lost: str | None = None  # why NVML cannot read it
    capability: int = 0  # compute capability, its first number; 0: NVML does not tell

    @property
    def label(self) -> str:
        """What people call it."""
        return f"gpu:{self.index}"


def gpus() -> list[Gpu]:
    """The GPUs by index, lost ones among them; empty without a driver. Honours no CUDA_VISIBLE_DEVICES.

    Raises:
        NoSuchDeviceError: the driver is there, but cannot even count them.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise NoSuchDeviceError(f"NVML does not count the GPUs ({error}); look at nvidia-smi") from error
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, index: int) -> Gpu:
    """Each is asked by itself: one that does not answer says nothing about the others."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        uuid, name = _text(pynvml.nvmlDeviceGetUUID(handle)), _text(pynvml.nvmlDeviceGetName(handle))
    except pynvml.NVMLError as error:
        return Gpu(index, lost=str(error))
    return Gpu(index, uuid, name, memory.total >> 20, memory.free >> 20, capability=_capability(pynvml, handle))


def _capability(pynvml: Any, handle: Any) -> int:
    try:
        return int(pynvml.nvmlDeviceGetCudaComputeCapability(handle)[0])
    except (pynvml.NVMLError, AttributeError):  # older drivers, or versions of pynvml
        return 0


def _text(said: str | bytes) -> str:
    """Older versions of pynvml answer with bytes."""
    return said.decode() if isinstance(said, bytes) else said


def visible(present: Sequence[Gpu]) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES (by index or UUID) leaves to this process, in its order; all if it is not set.

    As CUDA reads it: up to the first entry that names no GPU, so that "" and "-1" leave none.

    Raises:
        NoSuchDeviceError: it names parts of a GPU, which no worker can be given here.
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
    if entry.startswith("MIG-"):
        raise NoSuchDeviceError(
            f"{VISIBLE} is {os.environ[VISIBLE]!r}: GPUs in MIG parts are not shared out here; start a process for "
            "each part, with --device gpu:0"
        )
    if entry.isdecimal():
        fitting = [gpu for gpu in present if gpu.index == int(entry)]
    else:
        fitting = [gpu for gpu in present if entry.startswith("GPU-") and gpu.uuid.startswith(entry)]
    return fitting[0] if len(fitting) == 1 else None


def card(device: str) -> str | None:
    """Which GPU this process calls `device` (gpu:K), in words that are the same in every process that has it.

    Its UUID, or what is as good where NVML does not answer; None if it is no GPU. Ask before a backend starts, which
    may set CUDA_VISIBLE_DEVICES.
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
