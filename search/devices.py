"""Devices, precision and compilation policy: the only module that imports TensorFlow, and only inside functions.

Keras reads its backend when it is first imported (KERAS_BACKEND, else its configuration), and TensorFlow fixes its
threads when it first computes: call `configure` before anything imports keras.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.training.errors import UnfitMachineError

# TensorFlow's C++ log: 3 shows fatal errors only.
_QUIET = "3"
# Tensor cores multiply bfloat16 from compute capability 8 (Ampere) on; before it, bfloat16 is emulated and slow.
_BFLOAT16_CAPABILITY = 8
_BACKEND_PACKAGES = {
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tensorflow-intel"),
    "jax": ("jax",),
    "torch": ("torch",),
}


class DeviceError(UnfitMachineError):
    """The device asked for is not there or can no longer be configured."""


@dataclass
class _Configured:
    """What `configure` settled; a process has one device."""

    kind: str = "cpu"
    index: int = 0
    threads: int | None = None
    strategy: Any = field(default=None, repr=False)


_configured = _Configured()


def configure(device: str, threads: int | None = None) -> None:
    """Claim `device` ("cpu", "gpu:K" or "tpu") for this process, deterministic operations included.

    `threads` limits the CPU threads. Calling again with the same arguments does nothing. Raises DeviceError if the
    device is unknown or absent, or if TensorFlow has already started with another one.
    """
    global _configured
    kind, index = _parse(device)
    if threads is not None and threads < 1:
        raise DeviceError(f"threads is {threads}; it must be at least 1.")
    wanted = _Configured(kind, index, threads)
    if backend() == "jax":
        _configure_jax(wanted)
    elif backend() == "tensorflow":
        _configure_tensorflow(wanted)
    _configured = wanted


def _parse(device: str) -> tuple[str, int]:
    kind, _, index = device.partition(":")
    if device in ("cpu", "tpu"):
        return device, 0
    if kind == "gpu" and index.isdecimal():
        return kind, int(index)
    raise DeviceError(f"There is no device {device!r}; devices are cpu, gpu:0, gpu:1, … and tpu.")


def backend() -> str:
    """The Keras backend this process uses or will use, without importing Keras: as Keras itself finds it."""
    if chosen := os.environ.get("KERAS_BACKEND"):
        return chosen
    try:
        return str(json.loads((keras_home() / "keras.json").read_text()).get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):
        return "tensorflow"


def keras_home() -> Path:
    """Keras' own folder: its configuration, and its cache of data sets in `datasets`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def _configure_tensorflow(wanted: _Configured) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", _QUIET)
    with _stderr_if_failed():
        import tensorflow as tf

    try:
        if wanted.threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(wanted.threads)
            tf.config.threading.set_inter_op_parallelism_threads(wanted.threads)
        if wanted.kind == "gpu":
            _claim_gpu(tf, wanted.index)
        else:
            tf.config.set_visible_devices([], "GPU")
        tf.config.experimental.enable_op_determinism()
    except RuntimeError as error:
        raise DeviceError(
            f"TensorFlow already runs with other settings ({error}); start a new process to change the device."
        ) from error
    if wanted.kind == "tpu":
        wanted.strategy = _configured.strategy or _tpu_strategy(tf)


@contextlib.contextmanager
def _stderr_if_failed() -> Iterator[None]:
    """Hold back what C++ writes to stderr, and show it only if the block fails.

    TensorFlow's oneDNN notice is written before its log level is read, so the level cannot silence it.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _claim_gpu(tf: Any, index: int) -> None:
    gpus = tf.config.list_physical_devices("GPU")
    if index >= len(gpus):
        raise DeviceError(
            f"gpu:{index} was asked for, but TensorFlow finds {len(gpus)} GPUs; "
            "choose another device, or check the driver and that the gpu extra is installed."
        )
    tf.config.set_visible_devices([gpus[index]], "GPU")
    tf.config.experimental.set_memory_growth(gpus[index], True)  # several workers may share a GPU


def _tpu_strategy(tf: Any) -> Any:
    """On the TPU of this machine ("local"), or the one that TPU_NAME names."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except Exception as error:  # what is raised without a TPU differs from version to version
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DeviceError(f"No TPU answers ({reason}); check TPU_NAME and that the tpu extra is installed.") from error


def _configure_jax(wanted: _Configured) -> None:
    """JAX reads its settings from the environment when it first computes."""
    os.environ["JAX_PLATFORMS"] = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}[wanted.kind]
    flags = [os.environ.get("XLA_FLAGS", "")]
    if wanted.kind == "gpu":
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(wanted.index))
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        flags.append("--xla_gpu_deterministic_ops=true")
    if wanted.kind == "cpu" and wanted.threads == 1:
        flags.append("--xla_cpu_multi_thread_eigen=false")
    os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys(" ".join(flags).split()))


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
        import jax

        gpu = jax.devices()[0]
        major, _, minor = str(getattr(gpu, "compute_capability", "0.0")).partition(".")
        return {"device_name": gpu.device_kind, "compute_capability": (int(major), int(minor or 0))}
    import tensorflow as tf

    return dict(tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[_configured.index]))


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


def replicas() -> int:
    """Over how many copies of the model a batch is divided: a TPU's cores, else 1."""
    return int(getattr(_configured.strategy, "num_replicas_in_sync", 1))


@contextlib.contextmanager
def scope() -> Iterator[None]:
    """Where models are built: TPUStrategy's scope on a TPU, nothing special elsewhere."""
    with _configured.strategy.scope() if _configured.strategy is not None else contextlib.nullcontext():
        yield


def versions() -> dict[str, str]:
    """Versions of what a result depends on, from package metadata: nothing is imported."""
    found = {"python": platform.python_version(), "backend": backend()}
    for package in ("keras", "optuna", "numpy", "scikit-learn", "affinity-search"):
        found[package] = _version(package) or "not installed"
    candidates = _BACKEND_PACKAGES.get(backend(), (backend(),))
    found["backend_version"] = next(filter(None, map(_version, candidates)), "not installed")
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
