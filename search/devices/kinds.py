"""The kinds of device. Help texts, messages, planning, the doctor and both backends take theirs from `KINDS`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from affinity_search.search.devices import nvidia
from affinity_search.search.devices.errors import DeviceError
from affinity_search.search.devices.precision import Precision


@dataclass(frozen=True, eq=False)  # the same only if it is the same object
class Kind:
    """What is known of a kind of device before a backend is imported."""

    key: str  # the word in --devices and --device
    shown: str  # the word in a sentence
    is_here: Callable[[], bool]  # whether this process can use one
    absent: str  # why `is_here` says no, and the next step
    extra: str  # of this package: the one that installs TensorFlow for it
    builds: frozenset[str]  # the packages of TensorFlow that compute on it
    # What the precision "auto" becomes, by the least compute capability (an NVIDIA GPU's; others have 0); else float32.
    precisions: Mapping[int, Precision] = field(default_factory=dict)
    numbered: bool = False  # a process may choose one of several: gpu:0, gpu:1 …
    several: bool = False  # `--devices` may name some of a machine's: gpu:0,2

    def precision(self, capability: int) -> Precision:
        """The fastest precision of a device of that compute capability."""
        fitting = [least for least in self.precisions if least <= capability]
        return self.precisions[max(fitting)] if fitting else "float32"


DEVICE_FILES = Path("/dev")


def tpu_chips() -> list[int]:
    """The numbers of the TPU chips of this machine, by their device files.

    /dev/accel0 … up to v5e, /dev/vfio/0 … later. An entry of `vfio` that is no number is the driver's own.
    """
    names = [file.name.removeprefix("accel") for file in DEVICE_FILES.glob("accel*")]
    names += [file.name for file in (DEVICE_FILES / "vfio").glob("*")]
    return sorted({int(name) for name in names if name.isdecimal()})


def has_tpu() -> bool:
    """Whether this is a TPU VM, or a TPU is named in the environment."""
    return bool(os.environ.get("TPU_NAME")) or bool(tpu_chips())


CPU = Kind(
    "cpu",
    "CPU",
    is_here=lambda: True,
    absent="",
    extra="cpu",
    builds=frozenset({"tensorflow", "tensorflow-cpu", "tensorflow-tpu"}),
)
GPU = Kind(
    "gpu",
    "GPU",
    is_here=lambda: bool(nvidia.visible(nvidia.gpus())),
    absent="NVML finds no NVIDIA GPU; check the driver with nvidia-smi, or use --devices cpu",
    extra="gpu",
    builds=frozenset({"tensorflow"}),
    precisions={8: "mixed_bfloat16", 7: "mixed_float16"},  # what its tensor cores multiply
    numbered=True,
    several=True,
)
TPU = Kind(
    "tpu",
    "TPU",
    is_here=lambda: has_tpu(),
    absent="there is no /dev/accel0 and no /dev/vfio/0, and TPU_NAME is not set; name a TPU with --tpu, or use "
    "--devices cpu",
    extra="tpu",
    builds=frozenset({"tensorflow-tpu"}),
    precisions={0: "mixed_bfloat16"},
    several=True,  # a process sees the chips that its environment shows: `slots`
)

# `--devices auto` takes the first accelerator that is here, else the CPU.
ACCELERATORS = (GPU, TPU)
KINDS = (CPU, *ACCELERATORS)


def _words(each: Callable[[Kind], Sequence[str]], *first: str) -> str:
    words = [*first, *(f"{kind.key}{number}" for kind in KINDS for number in each(kind))]
    return f"{', '.join(words[:-1])} or {words[-1]}"


# For --device: a GPU needs its number, a TPU may be named whole.
ONE_DEVICE = _words(lambda kind: [":0"] if kind.numbered else ["", ":0"] if kind.several else [""], "auto")
SOME_DEVICES = _words(lambda kind: ["", ":0,2"] if kind.several else [""], "auto")  # for --devices
ANY_KIND = _words(lambda kind: [""], "auto")  # for --devices on a cluster, which counts them itself


def device_of(text: str) -> tuple[Kind, int]:
    """The kind and the number of "cpu", "gpu:0", "gpu:1" …, "tpu". Raises DeviceError for other words."""
    key, _, index = text.partition(":")
    for kind in KINDS:
        if kind.numbered and key == kind.key and index.isdecimal():
            return kind, int(index)
        if not kind.numbered and text == kind.key:
            return kind, 0
    known = _words(lambda kind: [":0", ":1"] if kind.numbered else [""])
    raise DeviceError(f"There is no device {text!r}; use {known}.")
