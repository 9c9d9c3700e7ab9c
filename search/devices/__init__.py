"""Devices, precision and compilation policy: nothing else imports TensorFlow, and this only inside functions.

Keras reads its backend when it is first imported (KERAS_BACKEND, else its configuration), and TensorFlow fixes its
threads when it first computes: call `configure` before anything imports keras.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from search.devices import on_jax, on_tensorflow
from search.devices.errors import DeviceError
from search.devices.packages import backend, keras_home, versions
from search.devices.wanted import Wanted

__all__ = ["DeviceError", "backend", "keras_home", "versions"]

# Tensor cores multiply bfloat16 from compute capability 8 (Ampere) on; before it, bfloat16 is emulated and slow.
_BFLOAT16_CAPABILITY = 8

_configured = Wanted()


def configure(device: str, threads: int | None = None, memory_mib: int | None = None) -> None:
    """Claim `device` ("cpu", "gpu:K" or "tpu") for this process, deterministic operations included.

    `threads` limits the CPU threads, `memory_mib` the GPU's memory. Calling again with the same arguments does nothing.
    Raises DeviceError if the device is unknown or absent, or if TensorFlow has already started with another one.
    """
    global _configured
    kind, index = _parse(device)
    if threads is not None and threads < 1:
        raise DeviceError(f"threads is {threads}; it must be at least 1.")
    wanted = Wanted(kind, index, threads, memory_mib)
    if backend() == "jax":
        on_jax.configure(wanted)
    elif backend() == "tensorflow":
        wanted.strategy = on_tensorflow.configure(wanted, _configured.strategy)
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


def settle_precision(requested: str) -> str:
    """ "float32" and "mixed_bfloat16" stay; "auto" is bfloat16 where the hardware multiplies it fast, else float32.

    That is a TPU or a GPU of compute capability 8 or more. Raises DeviceError for any other word.
    """
    if requested in ("float32", "mixed_bfloat16"):
        return requested
    if requested != "auto":
        raise DeviceError(f"There is no precision {requested!r}; use auto, float32 or mixed_bfloat16.")
    if _configured.kind == "gpu":
        fast = _gpu_details().get("compute_capability", (0, 0))[0] >= _BFLOAT16_CAPABILITY
    else:
        fast = _configured.kind == "tpu"
    return "mixed_bfloat16" if fast else "float32"


def compile_options() -> dict[str, Any]:
    """Options for Keras' `compile`.

    On TensorFlow XLA only on a GPU: on a CPU it halves the speed, and under TPUStrategy Keras fails with it (keras
    issue 19448). JAX is always compiled: without it every operation runs alone.
    """
    if backend() == "jax":
        return {"jit_compile": True}
    return {"jit_compile": "auto" if _configured.kind == "gpu" and backend() == "tensorflow" else False}


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
