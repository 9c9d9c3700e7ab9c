"""Setting TensorFlow up for one device: threads, a GPU and its memory, a TPU. This and its `tensorflow_*` neighbour
are the only importers of TensorFlow."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from affinity_search.search.devices.errors import DeviceError
from affinity_search.search.devices.packages import Wanted

_QUIET = "3"  # TensorFlow's C++ log shows fatal errors only


def configure(wanted: Wanted, former: Any) -> Any:
    """Claim the device; returns the strategy to build models in, or None. `former` is that of an earlier call."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", _QUIET)
    with _stderr_if_failed():
        import tensorflow as tf

    try:
        if wanted.threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(wanted.threads)
            tf.config.threading.set_inter_op_parallelism_threads(wanted.threads)
        if wanted.kind == "gpu":
            claim_gpu(tf, wanted.index, wanted.memory_mib)
        else:
            tf.config.set_visible_devices([], "GPU")
        tf.config.experimental.enable_op_determinism()
    except RuntimeError as error:
        raise DeviceError(
            f"TensorFlow already runs with other settings ({error}); start a new process to change the device."
        ) from error
    return (former or tpu_strategy(tf)) if wanted.kind == "tpu" else None


@contextlib.contextmanager
def _stderr_if_failed() -> Iterator[None]:
    """Hold back what C++ writes to stderr, and show it only if the block fails.

    TensorFlow's oneDNN notice is written before its log level is read, so the level cannot silence it.
    """
    sys.stderr.flush()
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError:  # a full disk, or no folder for temporary files: then the notice is seen
        yield
        return
    kept = os.dup(2)
    with file as held:
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


def claim_gpu(tf: Any, index: int, memory_mib: int | None) -> None:
    """Make the GPU the only one; `memory_mib` is the worker's share of it, None lets it take what it needs.

    TensorFlow refuses a limit and growth on the same device.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if index >= len(gpus):
        raise DeviceError(
            f"gpu:{index} was asked for, but TensorFlow finds {len(gpus)} GPUs; "
            "choose another device, or check the driver and that the gpu extra is installed."
        )
    tf.config.set_visible_devices([gpus[index]], "GPU")
    if memory_mib is None:
        tf.config.experimental.set_memory_growth(gpus[index], True)
    else:
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=memory_mib)
        tf.config.set_logical_device_configuration(gpus[index], [limit])


def tpu_strategy(tf: Any) -> Any:
    """On the TPU of this machine ("local"), or the one that TPU_NAME names."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except Exception as error:  # what is raised without a TPU differs from version to version
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DeviceError(f"No TPU answers ({reason}); check TPU_NAME and that the tpu extra is installed.") from error


def gpu_details(index: int) -> dict[str, Any]:
    """`device_name` and `compute_capability` (major, minor), as far as TensorFlow tells."""
    import tensorflow as tf

    return dict(tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[index]))
