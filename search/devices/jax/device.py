"""Setting JAX up for one device: it reads its settings from the environment when it first computes."""

import os
from typing import Any

from affinity_search.search.devices.errors import DeviceError
from affinity_search.search.devices.packages import Wanted

_LOCAL = ("", "local")

_claimed: Wanted | None = None


def configure(wanted: Wanted) -> None:
    """Write the settings; a launcher's share of the memory, which is there already, stays.

    Raises DeviceError if JAX does not find the GPU or TPU.
    """
    global _claimed
    if wanted == _claimed:  # the GPUs are counted as they were before the first time
        return
    os.environ["JAX_PLATFORMS"] = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}[wanted.kind]
    flags = [os.environ.get("XLA_FLAGS", "")]
    if wanted.kind == "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = _one_of(os.environ.get("CUDA_VISIBLE_DEVICES"), wanted.index)
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        flags.append("--xla_gpu_deterministic_ops=true")
    if wanted.kind == "cpu" and wanted.threads == 1:
        flags.append("--xla_cpu_multi_thread_eigen=false")
    os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys(" ".join(flags).split()))
    if wanted.kind == "tpu" and os.environ.get("TPU_NAME", "") not in _LOCAL:
        raise DeviceError(
            f"TPU_NAME is {os.environ['TPU_NAME']}, but JAX runs on the TPU of its own machine alone; "
            "start the worker there, or use KERAS_BACKEND=tensorflow."
        )
    if wanted.kind != "cpu":
        _require(wanted)
    _claimed = wanted


def _one_of(visible: str | None, index: int) -> str:
    """The entry of CUDA_VISIBLE_DEVICES that a process calls number `index`; without the variable the index itself."""
    if visible is None:
        return str(index)
    entries = [entry.strip() for entry in visible.split(",") if entry.strip()]
    if index >= len(entries):
        raise DeviceError(
            f"gpu:{index} was asked for, but CUDA_VISIBLE_DEVICES is {visible!r}, which leaves {len(entries)} GPUs; "
            "choose another device, or unset the variable."
        )
    return entries[index]


def _require(wanted: Wanted) -> None:
    import jax

    try:
        jax.devices()
    except Exception as error:  # what is raised without the device, or without its plugin, differs
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        name, package = ("GPU", "affinity-search[jax-gpu]") if wanted.kind == "gpu" else ("TPU", "jax[tpu]")
        raise DeviceError(
            f"JAX finds no {name} ({reason}); pip install '{package}', check the driver, or use another device."
        ) from error


def gpu_details() -> dict[str, Any]:
    """`device_name` and `compute_capability` (major, minor)."""
    import jax

    gpu = jax.devices()[0]
    major, _, minor = str(getattr(gpu, "compute_capability", "0.0")).partition(".")
    return {"device_name": gpu.device_kind, "compute_capability": (int(major), int(minor or 0))}
