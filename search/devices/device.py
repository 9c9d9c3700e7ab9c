"""What a process computes on: one device, as its Keras backend drives it."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from affinity_search.search.devices.errors import DeviceError
from affinity_search.search.devices.kinds import CPU, Kind
from affinity_search.search.devices.precision import PRECISIONS

if TYPE_CHECKING:  # a command's --help comes here too
    import numpy as np
    from numpy.typing import NDArray

Predictor: TypeAlias = "Callable[[NDArray[Any]], NDArray[Any]]"


class Steps(Protocol):
    """Training steps of one compiled model."""

    def run(
        self,
        indices: NDArray[np.int32],
        labels: NDArray[np.int32],
        weights: NDArray[np.float32],
        start: int,
        count: int,
    ) -> float:
        """Train on batches `start` … `start` + `count` − 1 of an epoch's (S, B) in one call.

        `weights` multiply the loss of each image.
        Returns the mean loss of the epoch so far: the epoch begins with the model's `reset_metrics`.
        """


@dataclass(frozen=True)
class Wanted:
    """Which device, and how much of it. `memory_mib` is the share of a GPU that several workers use; None is all."""

    kind: Kind = CPU
    index: int = 0
    threads: int | None = None
    memory_mib: int | None = None


class Device(abc.ABC):
    """The device of this process. `devices.configure` makes it; a backend's own class says how it computes."""

    kinds: ClassVar[tuple[Kind, ...]]  # those that the backend computes on
    extras: ClassVar[tuple[str, ...]]  # of this package: what installs the backend

    def __init__(self, wanted: Wanted) -> None:
        """Nothing is claimed yet."""
        self.wanted = wanted

    @abc.abstractmethod
    def claim(self) -> None:
        """Set the backend up for this device alone, with deterministic operations.

        Raises:
            DeviceError: the device is absent, or the backend already runs with other settings.
        """

    @abc.abstractmethod
    def gpu_details(self) -> dict[str, Any]:
        """The GPU's `device_name` and `compute_capability` (major, minor), as far as the backend tells."""

    @abc.abstractmethod
    def training_steps(self, model: Any, batch: int) -> Steps:
        """The steps of a compiled Keras model on batches of `batch` images."""

    @abc.abstractmethod
    def predictor(self, model: Any) -> Predictor:
        """A function from inputs (B, …) to the model's outputs (B, …), for one B that the replicas divide evenly."""

    def copier(self, variables: Sequence[Any]) -> Callable[[], list[Any]]:
        """A function that copies the present values of these Keras variables on the device, in their order."""
        from keras import ops

        return lambda: [ops.copy(variable) for variable in variables]

    @classmethod
    def precision_on(cls, kind: Kind, capability: int, widths: Sequence[int]) -> str:
        """What "auto" becomes on a device of that kind and compute capability; needs no backend.

        `widths` are the network's numbers of filters.
        """
        return kind.precision(capability)

    @property
    def kind(self) -> Kind:
        """CPU, GPU or another."""
        return self.wanted.kind

    def describe(self) -> str:
        """For people: "cpu, 2 threads", the GPU's name, "tpu, 8 cores"."""
        if self.kind is CPU:
            threads = self.wanted.threads or os.cpu_count() or 1
            return f"cpu, {threads} thread" + ("s" if threads > 1 else "")
        if self.kind.numbered:
            return str(self.gpu_details().get("device_name", f"{self.kind.key}:{self.wanted.index}"))
        return f"{self.kind.key}, {self.replicas()} cores" if self.replicas() > 1 else self.kind.key

    def settle_precision(self, requested: str, widths: Sequence[int] = ()) -> str:
        """ "auto" becomes what the hardware multiplies fast; float32, mixed_bfloat16 and mixed_float16 stay.

        Raises:
            DeviceError: any other word.
        """
        if requested in PRECISIONS:
            return requested
        if requested != "auto":
            raise DeviceError(f"There is no precision {requested!r}; use auto, {', '.join(PRECISIONS)}.")
        known = self.gpu_details() if self.kind.numbered else {}
        return self.precision_on(self.kind, known.get("compute_capability", (0, 0))[0], widths)

    def fused_batch_norm(self) -> Callable[..., Any] | None:
        """A batch norm in one operation: (inputs, gamma, beta, epsilon, moving=None) → (outputs, mean, variance).

        None where Keras' own is to be taken.
        """
        return None

    def average_pool(self) -> Callable[[Any], Any] | None:
        """The mean of each 2×2 pixels: (N, H, W, channels) → (N, ⌊H/2⌋, ⌊W/2⌋, channels).

        None where Keras' own is to be taken.
        """
        return None

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether the device, or the machine, has no room: Python's and TensorFlow's own classes, JAX's one for all."""
        names = ("MemoryError", "ResourceExhaustedError", "OutOfMemoryError")
        return type(error).__name__ in names or "RESOURCE_EXHAUSTED" in str(error)

    def peak_memory(self) -> int | None:
        """Bytes of the accelerator's memory that this process has used at most; None on a CPU, or if nobody tells."""
        return None

    def replicas(self) -> int:
        """Over how many copies of the model a batch is divided: a TPU's cores, else 1."""
        return 1

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Models are built within it."""
        return contextlib.nullcontext()
