"""All hardware: devices, precision, compilation. Only this room imports TensorFlow, and only inside functions.

Keras reads its backend when it is first imported, and TensorFlow fixes its
threads when it first computes: call `configure` before anything imports keras.
"""

from collections.abc import Sequence
from importlib.util import find_spec

from affinity_search.search.devices.device import Device, Predictor, Wanted
from affinity_search.search.devices.errors import DeviceError, UnfitMachineError
from affinity_search.search.devices.jax.device import JaxDevice
from affinity_search.search.devices.kinds import CPU, Kind, device_of
from affinity_search.search.devices.packages import backend, import_keras, keras_home, versions, without
from affinity_search.search.devices.tensorflow.device import TensorFlowDevice

__all__ = [
    "TRAINING_BACKENDS",
    "Device",
    "DeviceError",
    "Predictor",
    "backend",
    "import_keras",
    "keras_home",
    "versions",
]

_BACKENDS: dict[str, type[Device]] = {"tensorflow": TensorFlowDevice, "jax": JaxDevice}
TRAINING_BACKENDS = tuple(_BACKENDS)

_current: Device | None = None


def configure(device: str, threads: int | None = None, memory_mib: int | None = None) -> Device:
    """Claim `device` (such as cpu or gpu:0) for this process, deterministic operations included.

    `threads` limits the CPU threads, `memory_mib` the GPU's memory. Calling again with the same arguments does nothing.

    Raises:
        DeviceError: the device is unknown or absent, or TensorFlow has already started with another one.
        UnfitMachineError: Keras' backend is not installed.
    """
    global _current
    kind, index = device_of(device)
    if threads is not None and threads < 1:
        raise DeviceError(f"threads is {threads}; allowed: a whole number from 1.")
    _require_backend()
    made = _chosen()(Wanted(kind, index, threads, memory_mib))
    if _current is not None and (type(made), made.wanted) == (type(_current), _current.wanted):
        return _current
    if kind not in made.kinds:
        raise DeviceError(f"Keras' backend is {backend()}, which computes on no {kind.shown}; choose another device.")
    with without("matplotlib"):  # TensorFlow imports Keras too
        made.claim()
        import_keras()
    _current = made
    return made


def import_ahead() -> None:
    """Import what `configure("cpu")` imports on TensorFlow, and claim nothing.

    JAX must be claimed before it is imported. Raises ImportError, or UnfitMachineError as `import_keras`.
    """
    with without("matplotlib"):
        TensorFlowDevice.load(CPU)
        import_keras()


def current() -> Device:
    """The device that this process has configured. Keras' layers need it, and Keras makes those.

    Raises:
        RuntimeError: none yet.
    """
    if _current is None:
        raise RuntimeError("no device is configured; call devices.configure first")
    return _current


def precision_on(kind: Kind, capability: int, widths: Sequence[int]) -> str:
    """What the precision "auto" becomes where workers will train; as `Device.precision_on` says."""
    return _chosen().precision_on(kind, capability, widths)


def _chosen() -> type[Device]:
    """The class for Keras' backend. This is the only place that chooses it. A backend that cannot train gets
    TensorFlow's class here; `configure` refuses it.
    """
    return _BACKENDS.get(backend(), TensorFlowDevice)


def _require_backend() -> None:
    """Check that Keras' backend is installed and can train. Raises UnfitMachineError with what to install."""
    chosen = backend()
    here = [name for name in TRAINING_BACKENDS if find_spec(name)]
    if chosen in here:
        return
    remedies = [f"set KERAS_BACKEND={name}, which is installed" for name in here]
    if chosen in _BACKENDS:
        problem = f"is {chosen}, which is not installed"
        extra, *others = _BACKENDS[chosen].extras
        remedies.insert(0, f"pip install 'affinity-search[{extra}]' (or {', '.join(f'[{other}]' for other in others)})")
    else:
        problem = f"is {chosen}, but training runs on {' and '.join(TRAINING_BACKENDS)}"
    raise UnfitMachineError(f"Keras' backend {problem}; {', or '.join(remedies) or 'set KERAS_BACKEND=tensorflow'}")
