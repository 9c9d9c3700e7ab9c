"""Setting JAX up for one device: it reads its settings from the environment when it first computes."""

import os
from typing import Any

from search.devices.wanted import Wanted


def configure(wanted: Wanted) -> None:
    """Write the settings; what is there already, such as a launcher's share of the memory, stays."""
    os.environ["JAX_PLATFORMS"] = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}[wanted.kind]
    flags = [os.environ.get("XLA_FLAGS", "")]
    if wanted.kind == "gpu":
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(wanted.index))
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        flags.append("--xla_gpu_deterministic_ops=true")
    if wanted.kind == "cpu" and wanted.threads == 1:
        flags.append("--xla_cpu_multi_thread_eigen=false")
    os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys(" ".join(flags).split()))


def gpu_details() -> dict[str, Any]:
    """`device_name` and `compute_capability` (major, minor)."""
    import jax

    gpu = jax.devices()[0]
    major, _, minor = str(getattr(gpu, "compute_capability", "0.0")).partition(".")
    return {"device_name": gpu.device_kind, "compute_capability": (int(major), int(minor or 0))}
