"""All hardware: devices, precision, compilation. Nothing else imports TensorFlow, and this only inside functions.

Keras reads its backend when it is first imported, and TensorFlow fixes its
threads when it first computes: call `configure` before anything imports keras.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.devices.errors import DeviceError
from affinity_search.search.devices.jax import setup as on_jax
from affinity_search.search.devices.packages import (
    TRAINING_BACKENDS,
    Wanted,
    backend,
    import_keras,
    keras_home,
    require_backend,
    versions,
    without_matplotlib,
)
from affinity_search.search.devices.precision import PRECISIONS, cpu_multiplies_bfloat16
from affinity_search.search.devices.tensorflow import setup as on_tensorflow

__all__ = ["TRAINING_BACKENDS", "DeviceError", "Predictor", "backend", "import_keras", "keras_home", "versions"]

Predictor = Callable[[NDArray[np.int32]], NDArray[Any]]

# By compute capability: tensor cores multiply bfloat16 from Ampere on, and from Volta on float16 alone.
_TENSOR_CORES = {8: "mixed_bfloat16", 7: "mixed_float16"}
_ONEDNN_BLOCK = 16  # filters

_configured = Wanted()


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


def configure(device: str, threads: int | None = None, memory_mib: int | None = None) -> None:
    """Claim `device` ("cpu", "gpu:K" or "tpu") for this process, deterministic operations included.

    `threads` limits the CPU threads, `memory_mib` the GPU's memory. Calling again with the same arguments does nothing.
    Raises DeviceError if the device is unknown or absent, or if TensorFlow has already started with another one, and
    UnfitMachineError if Keras' backend is not installed.
    """
    global _configured
    kind, index = _parse(device)
    if threads is not None and threads < 1:
        raise DeviceError(f"threads is {threads}; it must be at least 1.")
    require_backend()
    wanted = Wanted(kind, index, threads, memory_mib)
    with without_matplotlib():  # TensorFlow imports Keras too
        if backend() == "jax":
            on_jax.configure(wanted)
        elif backend() == "tensorflow":
            wanted.strategy = on_tensorflow.configure(wanted, _configured.strategy)
        import_keras()
    _configured = wanted


def _parse(device: str) -> tuple[str, int]:
    kind, _, index = device.partition(":")
    if device in ("cpu", "tpu"):
        return device, 0
    if kind == "gpu" and index.isdecimal():
        return kind, int(index)
    raise DeviceError(f"There is no device {device!r}; devices are cpu, gpu:0, gpu:1, … and tpu.")


def describe() -> str:
    """The configured device for people: "cpu, 2 threads", or the GPU's name."""
    if _configured.kind == "gpu":
        return str(_gpu_details().get("device_name", f"gpu:{_configured.index}"))
    if _configured.kind == "tpu":
        return f"tpu, {replicas()} cores" if _configured.strategy is not None else "tpu"
    threads = _configured.threads or os.cpu_count() or 1
    return f"cpu, {threads} thread" + ("s" if threads > 1 else "")


def _gpu_details() -> dict[str, Any]:
    """The GPU's `device_name` and `compute_capability` (major, minor), as far as the backend tells."""
    if backend() == "jax":
        return on_jax.gpu_details()
    return on_tensorflow.gpu_details(_configured.index)


def settle_precision(requested: str, widths: Sequence[int] = ()) -> str:
    """ "auto" becomes what the hardware multiplies fast; float32, mixed_bfloat16 and mixed_float16 stay.

    bfloat16 on a TPU, on a GPU of compute capability 8 or more, and on a CPU with AVX-512 BF16 or AMX instructions
    under TensorFlow, whose oneDNN uses them for convolutions of 16, 32, … filters (`widths`: with 8 or 24 they are two
    to five times slower than in float32); float16 on a GPU of capability 7; else float32. Raises DeviceError for any
    other word.
    """
    if requested in PRECISIONS:
        return requested
    if requested != "auto":
        raise DeviceError(f"There is no precision {requested!r}; use auto, {', '.join(PRECISIONS)}.")
    capability = _gpu_details().get("compute_capability", (0, 0))[0] if _configured.kind == "gpu" else 0
    return precision_on(_configured.kind, capability, widths)


def precision_on(kind: str, capability: int, widths: Sequence[int]) -> str:
    """What "auto" becomes on a cpu, a gpu of that compute capability, or a tpu; needs no backend."""
    if kind == "gpu":
        half = (name for least, name in _TENSOR_CORES.items() if capability >= least)
        return next(half, "float32")
    if kind == "tpu":
        return "mixed_bfloat16"
    whole = all(width % _ONEDNN_BLOCK == 0 for width in widths)
    return "mixed_bfloat16" if backend() == "tensorflow" and whole and cpu_multiplies_bfloat16() else "float32"


def compiles_with_xla() -> bool:
    """Whether TensorFlow's functions are compiled by XLA: on a GPU alone.

    On a CPU it makes a step two to five times slower, and on a TPU the strategy compiles. Keras' own `jit_compile` is
    of no use here: it turns itself off where operations are deterministic, because XLA has no deterministic form of
    some of them on a GPU (the gradient of max pooling, keras pull request 20315); our networks have none of these. JAX
    always compiles.
    """
    return _configured.kind == "gpu"


def training_steps(model: Any, batch: int) -> Steps:
    """The steps of a compiled Keras model on batches of `batch` images, in the way of its backend."""
    if backend() == "jax":
        from affinity_search.search.devices.jax.steps import JaxSteps

        return JaxSteps(model)
    from affinity_search.search.devices.tensorflow.steps import TensorFlowSteps

    return TensorFlowSteps(model, batch, _configured.strategy, jit=compiles_with_xla())


def predictor(model: Any) -> Predictor:
    """A function from indices (B,) to the model's outputs (B, …), for one B that the replicas divide evenly."""
    if backend() == "jax":
        from affinity_search.search.devices.jax.steps import prediction

        return prediction(model)
    from affinity_search.search.devices.tensorflow.steps import TensorFlowPrediction

    return TensorFlowPrediction(model, _configured.strategy, jit=compiles_with_xla())


def fused_batch_norm() -> Callable[..., Any] | None:
    """A batch norm in one operation: (inputs, gamma, beta, epsilon, moving=None) → (outputs, mean, variance).

    None where Keras' own is to be taken: on a GPU or TPU XLA fuses it, and nothing was measured there.
    """
    from affinity_search.search.devices.tensorflow.steps import fused_batch_norm as fused

    return fused if _configured.kind == "cpu" and backend() == "tensorflow" else None


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device, or the machine, has no room: TensorFlow's and torch's own classes, JAX's one for all."""
    names = ("MemoryError", "ResourceExhaustedError", "OutOfMemoryError")
    return type(error).__name__ in names or "RESOURCE_EXHAUSTED" in str(error)


def replicas() -> int:
    """Over how many copies of the model a batch is divided: a TPU's cores, else 1."""
    return int(getattr(_configured.strategy, "num_replicas_in_sync", 1))


@contextlib.contextmanager
def scope() -> Iterator[None]:
    """Where models are built: TPUStrategy's scope on a TPU, nothing special elsewhere."""
    with _configured.strategy.scope() if _configured.strategy is not None else contextlib.nullcontext():
        yield
