"""Plans workers on the devices of this machine, without importing TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from affinity_search.search.devices import kinds, nvidia
from affinity_search.search.devices.kinds import ACCELERATORS, CPU, GPU, KINDS, SOME_DEVICES, TPU, Kind
from affinity_search.search.devices.nvidia import VISIBLE, Gpu, NoSuchDeviceError, visible
from affinity_search.search.devices.packages import backend


@dataclass(frozen=True)
class Slot:
    """Room for one worker process: its label for people, its options, and its environment."""

    label: str  # cpu, gpu:1, tpu
    device: str  # the worker's --device
    threads: int | None
    environment: dict[str, str]
    uuid: str | None = None  # its GPU's: indices change when a card is lost
    memory_mib: int | None = None  # its share of a GPU that several workers use


# Workers that share a GPU get this part of its memory. The rest is for the driver and for each process.
SHARED = 0.9
# With less than this our networks and their images have no room.
LEAST_FREE_MIB = 1024


def trouble(slot: Slot) -> str | None:
    """Why no worker can start there now: its GPU is gone or full. None if all is well."""
    if slot.uuid is None:
        return None
    try:
        present = nvidia.gpus()
    except NoSuchDeviceError as error:
        return f"{slot.label}: {error}"
    gpu = next((gpu for gpu in present if gpu.uuid == slot.uuid), None)
    if gpu is None:
        lost = "".join(f", and one is lost ({gpu.lost})" for gpu in present if gpu.lost)
        found = f"NVML finds {len(present)} GPUs{lost}, none of them {slot.uuid}"
        return f"{slot.label} has disappeared: {found}; check it with nvidia-smi"
    needed = max(LEAST_FREE_MIB, slot.memory_mib or 0)
    if gpu.free_mib < needed:
        found = f"{gpu.free_mib} MiB free of {gpu.total_mib}, {needed} needed"
        return f"{slot.label} is full: {found}; see nvidia-smi for who uses it"
    return None


def cpu_cores() -> int:
    """Cores this process may use: containers and `taskset` allow fewer than the machine has."""
    try:
        return len(psutil.Process().cpu_affinity())
    except AttributeError:  # macOS has no affinity
        return psutil.cpu_count() or 1


def plan(
    devices: str,
    workers: int | None,
    *,
    per_device: int = 1,
    tpus: Sequence[str] = (),
    tpu_strategy: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Slot]:
    """One slot for each worker. `devices` is as for `launch --devices`. `workers` is the number of CPU workers.

    `per_device` workers share each GPU. Each TPU chip of this machine has a worker; with `tpu_strategy` one worker
    divides each batch over all of them. `tpus` names TPUs elsewhere, with one worker each. auto and gpu take the GPUs
    that CUDA_VISIBLE_DEVICES shows and NVML can read. `say` gets a line about each GPU that NVML cannot read.

    Raises:
        NoSuchDeviceError: an unknown word, a device that is not there, or a number of workers that does not fit.
    """
    if devices == "auto":
        devices = (TPU if tpus else next((kind for kind in ACCELERATORS if kind.is_here()), CPU)).key
    kind, indices = _kind_of(devices)
    if tpus and kind is not TPU:
        raise NoSuchDeviceError(f"--tpu {tpus[0]} given with --devices {devices}; use --devices tpu or leave --tpu out")
    if tpu_strategy and (kind is not TPU or indices):
        raise NoSuchDeviceError(
            f"--tpu-strategy given with {devices}: it is one worker on all chips; use --devices tpu"
        )
    if per_device != 1 and kind is not GPU:
        raise NoSuchDeviceError(
            f"--workers-per-device {per_device} given for {devices}: only GPUs are shared; on a CPU use --workers"
        )
    if kind is CPU:
        return _cpu_slots(workers or 1)
    slots = _accelerator_slots(kind, indices, per_device, tpus, tpu_strategy, say)
    if workers is not None and workers != len(slots):
        raise NoSuchDeviceError(
            f"--workers {workers} given for {devices}, but {len(slots)} run; --workers-per-device puts more on a GPU"
        )
    return slots


def _accelerator_slots(
    kind: Kind, numbers: str, per_device: int, tpus: Sequence[str], tpu_strategy: bool, say: Callable[[str], None]
) -> list[Slot]:
    if kind is GPU:
        return _gpu_slots(numbers, per_device, say)
    if not tpus and not kind.is_here():
        raise NoSuchDeviceError(f"no {kind.shown} found: {kind.absent}")
    if kind is TPU:
        return _named_tpus(tpus) if tpus else _tpu_slots(numbers, whole=tpu_strategy)
    return [Slot(kind.key, kind.key, None, {})]  # all devices of that kind here, for one worker


def _kind_of(devices: str) -> tuple[Kind, str]:
    """The kind of device, and the numbers that follow it (for "gpu:0,2" they are "0,2")."""
    key, colon, numbers = devices.partition(":")
    kind = next((kind for kind in KINDS if kind.key == key), None)
    if kind is None or (colon and not kind.several):
        raise NoSuchDeviceError(f"devices {devices!r} given; allowed: {SOME_DEVICES}")
    return kind, numbers


def own_device(asked: str, tpus: Sequence[str] = ()) -> str:
    """The device of a command that trains in this process. auto: the first one that answers of the best kind here.

    Then this process sees only that device: CUDA's first GPU may be lost, or another program may use it.
    """
    if asked != "auto" and not tpus and not asked.startswith(f"{TPU.key}:"):
        return asked
    slot = plan(asked, None, tpus=tpus)[0]
    os.environ.update(slot.environment if slot.device != "cpu" else {})
    return slot.device


def _cpu_slots(workers: int) -> list[Slot]:
    if workers < 1:
        raise NoSuchDeviceError(f"--workers {workers} given; allowed: a whole number from 1")
    threads = max(1, cpu_cores() // workers)
    return [Slot(CPU.key, CPU.key, threads, {VISIBLE: "-1"}) for _ in range(workers)]


def _gpu_slots(indices: str, per_device: int, say: Callable[[str], None]) -> list[Slot]:
    present = nvidia.gpus()
    if not present:
        raise NoSuchDeviceError(f"no {GPU.shown} found: {GPU.absent}")
    chosen = _chosen(indices, present) if indices else _answering(visible(present), say)
    return [_gpu_slot(gpu, per_device) for gpu in chosen for _ in range(per_device)]


def _gpu_slot(gpu: Gpu, per_device: int) -> Slot:
    """The worker sees only its GPU, as number 0. On a shared GPU it gets its part of the memory."""
    environment = {VISIBLE: gpu.uuid}
    if per_device == 1:
        return Slot(gpu.label, "gpu:0", None, environment, gpu.uuid)
    share = SHARED / per_device
    environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{share:.3f}"  # JAX's; TensorFlow is told in MiB
    return Slot(gpu.label, "gpu:0", None, environment, gpu.uuid, int(gpu.total_mib * share))


def _answering(seen: Sequence[Gpu], say: Callable[[str], None]) -> list[Gpu]:
    """The GPUs that NVML can read. `say` gets a line about each other one."""
    if not seen:
        listed = os.environ[VISIBLE]
        raise NoSuchDeviceError(f"{VISIBLE} is {listed!r} and hides every GPU; unset it, or use --devices cpu")
    lost = [gpu for gpu in seen if gpu.lost]
    if len(lost) == len(seen):
        reasons = ", ".join(f"{gpu.label}: {gpu.lost}" for gpu in lost)
        raise NoSuchDeviceError(f"NVML answers for no GPU ({reasons}); look at nvidia-smi, or use --devices cpu")
    for gpu in lost:
        say(f"{gpu.label} is left out: NVML does not answer for it ({gpu.lost}); check it with nvidia-smi")
    return [gpu for gpu in seen if not gpu.lost]


def _chosen(text: str, present: Sequence[Gpu]) -> list[Gpu]:
    """The GPUs with these numbers. All of them must be there. Of a divided one, 0 means all parts, and 0.1 one part."""
    named = [part.strip() for part in text.split(",")]
    found = [[gpu for gpu in present if name in (str(gpu.index), gpu.label.removeprefix("gpu:"))] for name in named]
    if not all(found) or len(set(named)) != len(named):
        here = ", ".join(gpu.label.removeprefix("gpu:") for gpu in present)
        raise NoSuchDeviceError(f"gpu:{text} given; this machine has GPUs {here}, each named once")
    chosen = [gpu for each in found for gpu in each]
    seen = visible(present)
    for gpu in chosen:
        if gpu not in seen:
            raise NoSuchDeviceError(
                f"gpu:{text} given, but {VISIBLE} is {os.environ[VISIBLE]!r} and hides {gpu.label}; unset it, or name "
                "a GPU that it shows"
            )
        if gpu.lost:
            raise NoSuchDeviceError(
                f"gpu:{text} given, but NVML does not answer for {gpu.label} ({gpu.lost}); look at nvidia-smi, or "
                "leave it out"
            )
    return chosen


def _named_tpus(names: Sequence[str]) -> list[Slot]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise NoSuchDeviceError(f"--tpu {twice} given twice; a TPU has one worker, so name each once")
    return [Slot(f"{TPU.key}:{name}", TPU.key, None, {"TPU_NAME": name}) for name in names]


def _tpu_slots(numbers: str, *, whole: bool) -> list[Slot]:
    """A worker for each chip of this machine, or for those with these numbers; one for all chips if `whole`.

    A TPU that TPU_NAME names elsewhere has one worker.
    """
    chips = kinds.tpu_chips()
    elsewhere = os.environ.get("TPU_NAME", "local") not in ("", "local")
    if not chips or (elsewhere and not numbers):
        return [Slot(TPU.key, TPU.key, None, {})]
    if whole and backend() != "tensorflow":
        raise NoSuchDeviceError(f"--tpu-strategy is TensorFlow's, and Keras' backend is {backend()}; leave it out")
    if whole:
        return [Slot(TPU.key, TPU.key, None, {"TPU_NAME": "local"})]
    return [_chip_slot(chip) for chip in (_numbered(numbers, chips) if numbers else chips)]


def _numbered(text: str, chips: Sequence[int]) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    found = [int(part) for part in parts if part.isdecimal() and int(part) in chips]
    if len(set(found)) != len(parts):
        here = ", ".join(map(str, chips))
        raise NoSuchDeviceError(f"{TPU.key}:{text} given; this machine has TPU chips {here}, each named once")
    return found


# libtpu's usual port. Each process that has a chip to itself needs one of its own.
FIRST_PORT = 8476


def _chip_slot(chip: int) -> Slot:
    """The worker sees one chip, as if it were a whole TPU. libtpu reads these variables when it is loaded.

    TPU_VISIBLE_CHIPS alone is not enough: without the bounds and a port the second process finds the TPU in use.
    """
    port = str(FIRST_PORT + chip)
    environment = {
        "TPU_NAME": "local",
        "TPU_VISIBLE_CHIPS": str(chip),
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "TPU_PROCESS_ADDRESSES": f"localhost:{port}",
        "TPU_PROCESS_PORT": port,
        "CLOUD_TPU_TASK_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    return Slot(f"{TPU.key}:{chip}", TPU.key, None, environment)
