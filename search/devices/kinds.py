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
    numbered: bool = False  # a machine may have several: gpu:0, gpu:1 …

    def precision(self, capability: int) -> Precision:
        """The fastest precision of a device of that compute capability."""
        fitting = [least for least in self.precisions if least <= capability]
        return self.precisions[max(fitting)] if fitting else "float32"


def has_tpu() -> bool:
    """Whether this is a TPU VM (its device files), or a TPU is named in the environment."""
    return bool(os.environ.get("TPU_NAME")) or any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists()


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
)
TPU = Kind(
    "tpu",
    "TPU",
    is_here=lambda: has_tpu(),
    absent="there is no /dev/accel* and no /dev/vfio/0, and TPU_NAME is not set; name a TPU with --tpu, or use "
    "--devices cpu",
    extra="tpu",
    builds=frozenset({"tensorflow-tpu"}),
    precisions={0: "mixed_bfloat16"},
)

# `--devices auto` takes the first accelerator that is here, else the CPU.
ACCELERATORS = (GPU, TPU)
KINDS = (CPU, *ACCELERATORS)


def _words(*first: str, numbers: Sequence[str]) -> str:
    words = list(first)
    for kind in KINDS:
        words += [f"{kind.key}{number}" for number in numbers] if kind.numbered else [kind.key]
    return f"{', '.join(words[:-1])} or {words[-1]}"


ONE_DEVICE = _words("auto", numbers=[":0"])  # for --device
SOME_DEVICES = _words("auto", numbers=["", ":0,2"])  # for --devices
ANY_KIND = _words("auto", numbers=[""])  # for --devices on a cluster, which counts them itself


def device_of(text: str) -> tuple[Kind, int]:
    """The kind and the number of "cpu", "gpu:0", "gpu:1" …, "tpu". Raises DeviceError for other words."""
    key, _, index = text.partition(":")
    for kind in KINDS:
        if kind.numbered and key == kind.key and index.isdecimal():
            return kind, int(index)
        if not kind.numbered and text == kind.key:
            return kind, 0
    raise DeviceError(f"There is no device {text!r}; use {_words(numbers=[':0', ':1'])}.")
