"""JAX's device: JAX reads its settings from the environment when it first computes."""

import os
from collections.abc import Callable
from typing import Any

from affinity_search.search.devices.device import Device, Predictor, Steps
from affinity_search.search.devices.errors import DeviceError
from affinity_search.search.devices.kinds import CPU, GPU, TPU, Kind

_LOCAL = ("", "local")
# JAX's own name for each kind, and the package that knows it.
_PLATFORMS = {CPU.key: "cpu", GPU.key: "cuda", TPU.key: "tpu"}
_PACKAGES = {GPU.key: "affinity-search[jax-gpu]", TPU.key: "jax[tpu]"}


class JaxDevice(Device):
    """A CPU, a GPU, or the TPU of this machine. JAX compiles everything."""

    kinds = (CPU, GPU, TPU)
    extras = ("jax", "jax-gpu")

    def claim(self) -> None:
        """Write the settings; a launcher's share of the memory, which is there already, stays."""
        os.environ["JAX_PLATFORMS"] = _PLATFORMS[self.kind.key]
        flags = [os.environ.get("XLA_FLAGS", "")]
        if self.kind is GPU:
            os.environ["CUDA_VISIBLE_DEVICES"] = _one_of(os.environ.get("CUDA_VISIBLE_DEVICES"), self.wanted.index)
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
            flags.append("--xla_gpu_deterministic_ops=true")
        if self.kind is CPU and self.wanted.threads == 1:
            flags.append("--xla_cpu_multi_thread_eigen=false")
        os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys(" ".join(flags).split()))
        if self.kind is TPU and os.environ.get("TPU_NAME", "") not in _LOCAL:
            raise DeviceError(
                f"TPU_NAME is {os.environ['TPU_NAME']}, but JAX runs on the TPU of its own machine alone; "
                "start the worker there, or use KERAS_BACKEND=tensorflow."
            )
        if self.kind is not CPU:
            _require(self.kind)

    def gpu_details(self) -> dict[str, Any]:
        """JAX sees this GPU alone."""
        import jax

        gpu = jax.devices()[0]
        major, _, minor = str(getattr(gpu, "compute_capability", "0.0")).partition(".")
        return {"device_name": gpu.device_kind, "compute_capability": (int(major), int(minor or 0))}

    def peak_memory(self) -> int | None:
        """As `Device.peak_memory` says."""
        import jax

        told = jax.devices()[0].memory_stats() if self.kind is not CPU else None
        return told.get("peak_bytes_in_use") if told else None

    def training_steps(self, model: Any, batch: int) -> Steps:
        """As `Device.training_steps` says."""
        from affinity_search.search.devices.jax.steps import JaxSteps

        return JaxSteps(model)

    def predictor(self, model: Any) -> Predictor:
        """As `Device.predictor` says."""
        from affinity_search.search.devices.jax.steps import prediction

        return prediction(model)

    def fused_batch_norm(self) -> Callable[..., Any] | None:
        """On a GPU alone: there a step of the CIFAR-10 network was 5 % shorter. Nothing was measured elsewhere."""
        if self.kind is not GPU:
            return None
        from affinity_search.search.devices.jax.operations import batch_norm

        return batch_norm

    def average_pool(self) -> Callable[[Any], Any] | None:
        """On a GPU alone, as above: 5 % more."""
        if self.kind is not GPU:
            return None
        from affinity_search.search.devices.jax.operations import average_pool

        return average_pool


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


def _require(kind: Kind) -> None:
    import jax

    try:
        jax.devices()
    except Exception as error:  # what is raised without the device, or without its plugin, differs
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise DeviceError(
            f"JAX finds no {kind.shown} ({reason}); pip install '{_PACKAGES[kind.key]}', check the driver, or use "
            "another device."
        ) from error
