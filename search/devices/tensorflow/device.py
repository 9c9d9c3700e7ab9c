"""TensorFlow's device: its threads, a GPU and its memory, a TPU. This and `steps.py` alone import TensorFlow."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from affinity_search.search.devices.device import Device, Predictor, Steps
from affinity_search.search.devices.errors import DeviceError
from affinity_search.search.devices.kinds import CPU, GPU, TPU, Kind
from affinity_search.search.devices.precision import cpu_multiplies_bfloat16

_QUIET = "3"  # TensorFlow's C++ log shows fatal errors only
_ONEDNN_BLOCK = 16  # filters


class TensorFlowDevice(Device):
    """A CPU, a GPU, or a TPU by its strategy, which divides each batch over the cores."""

    kinds = (CPU, GPU, TPU)
    extras = tuple(kind.extra for kind in kinds)
    strategy: Any = None

    @classmethod
    def load(cls, kind: Kind) -> None:
        """Import TensorFlow as a device of that kind needs it; nothing is claimed."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", _QUIET)
        if kind is CPU:  # without AVX-512 TensorFlow leaves oneDNN's convolutions off, which are 1.4 to 3 times as fast
            os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        with _stderr_if_failed():
            import tensorflow  # noqa: F401

    def claim(self) -> None:
        """As `Device.claim` says."""
        self.load(self.kind)
        import tensorflow as tf

        wanted = self.wanted
        try:
            if wanted.threads is not None:
                tf.config.threading.set_intra_op_parallelism_threads(wanted.threads)
                tf.config.threading.set_inter_op_parallelism_threads(wanted.threads)
            if self.kind is GPU:
                claim_gpu(tf, wanted.index, wanted.memory_mib)
            else:
                tf.config.set_visible_devices([], "GPU")
            tf.config.experimental.enable_op_determinism()
        except RuntimeError as error:
            raise DeviceError(
                f"TensorFlow already runs with other settings ({error}); start a new process to change the device."
            ) from error
        if self.kind is TPU:
            self.strategy = tpu_strategy(tf)

    def gpu_details(self) -> dict[str, Any]:
        """As far as TensorFlow tells."""
        import tensorflow as tf

        gpu = tf.config.list_physical_devices("GPU")[self.wanted.index]
        return dict(tf.config.experimental.get_device_details(gpu))

    def peak_memory(self) -> int | None:
        """As `Device.peak_memory` says."""
        import tensorflow as tf

        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"]) if self.kind is GPU else None

    @classmethod
    def precision_on(cls, kind: Kind, capability: int, widths: Sequence[int]) -> str:
        """On a CPU bfloat16 if its instructions multiply it (AVX-512 BF16 or AMX): oneDNN uses them.

        That holds for convolutions of 16, 32, … filters: with 8 or 24 they are two to five times slower than float32.
        """
        if kind is CPU and all(width % _ONEDNN_BLOCK == 0 for width in widths) and cpu_multiplies_bfloat16():
            return "mixed_bfloat16"
        return super().precision_on(kind, capability, widths)

    def compiles_with_xla(self) -> bool:
        """Whether XLA compiles the functions: on a GPU alone.

        On a CPU it makes a step two to five times slower, and on a TPU the strategy compiles. Keras' own `jit_compile`
        is of no use here. It turns itself off where operations are deterministic, because XLA has no deterministic form
        of some of them on a GPU (the gradient of max pooling, keras pull request 20315); our networks have none of
        these.
        """
        return self.kind is GPU

    def training_steps(self, model: Any, batch: int) -> Steps:
        """As `Device.training_steps` says. Raises DeviceError if the replicas cannot share a batch evenly."""
        from affinity_search.search.devices.tensorflow.steps import TensorFlowSteps

        return TensorFlowSteps(model, batch, self.strategy, jit=self.compiles_with_xla())

    def predictor(self, model: Any) -> Predictor:
        """As `Device.predictor` says."""
        from affinity_search.search.devices.tensorflow.steps import TensorFlowPrediction

        return TensorFlowPrediction(model, self.strategy, jit=self.compiles_with_xla())

    def copier(self, variables: Sequence[Any]) -> Callable[[], list[Any]]:
        """As `Device.copier` says; on a CPU in one traced call. One by one 42 variables took 6 ms an epoch.

        A value that is held is never written to: TensorFlow gives the variable another buffer before its next update.
        """
        import tensorflow as tf

        if self.kind is not CPU:  # nothing was measured there
            return super().copier(variables)
        copied: Callable[[], list[Any]] = tf.function(lambda: [tf.identity(each.value) for each in variables])
        return copied

    def fused_batch_norm(self) -> Callable[..., Any] | None:
        """On a CPU alone: on a GPU or TPU XLA fuses Keras' own, and nothing was measured there."""
        from affinity_search.search.devices.tensorflow.steps import fused_batch_norm

        return fused_batch_norm if self.kind is CPU else None

    def replicas(self) -> int:
        """The strategy's."""
        return 1 if self.strategy is None else int(self.strategy.num_replicas_in_sync)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The strategy's on a TPU."""
        scope: contextlib.AbstractContextManager[Any] = (
            super().scope() if self.strategy is None else self.strategy.scope()
        )
        return scope


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
