"""The backend that Keras uses, the installed versions, and the import of Keras as training needs it."""

import contextlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from affinity_search.search.devices.errors import UnfitMachineError

_BACKEND_PACKAGES = {
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tensorflow-intel"),
    "jax": ("jax",),
    "torch": ("torch",),
}


def backend() -> str:
    """The Keras backend that this process uses or will use: KERAS_BACKEND, or else TensorFlow.

    Not what ~/.keras/keras.json says: a file outside the study must not change its scores.
    """
    return os.environ.get("KERAS_BACKEND") or "tensorflow"


def import_keras() -> None:
    """Import Keras with our own settings, not those of the user's keras.json. Call it before anything else imports
    Keras.

    Raises UnfitMachineError for a keras.json that Keras itself refuses.
    """
    os.environ["KERAS_BACKEND"] = backend()
    try:
        with without("matplotlib"):
            import keras
    except ValueError as error:
        raise UnfitMachineError(
            f"Keras does not accept {keras_home() / 'keras.json'} ({error}); correct or remove that file"
        ) from error
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_dtype_policy("float32")


# What Keras and TensorFlow import if it is there, and training needs of it nothing: tables, notebooks, conversions,
# wrappers for scikit-learn.
UNNEEDED = ("pandas", "IPython", "jax", "sklearn")


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Within it these packages are not found; those that are imported already stay, and so does Keras' backend.

    Keras imports matplotlib for galleries of images, which we do not use. It would read the user's matplotlibrc and a
    notebook's MPLBACKEND. This process may be unable to load that backend, and the worker would end.
    """
    hidden = [name for name in names if name not in sys.modules and name != backend()]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def keras_home() -> Path:
    """Keras' own folder, found as Keras finds it. It holds its configuration and, in `datasets`, its cache of data
    sets.
    """
    if given := os.environ.get("KERAS_HOME"):
        return Path(given)
    try:
        home = Path.home()
    except RuntimeError:  # a container's user id may have neither a name nor a home
        home = Path("/tmp")
    return (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras"


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on, from their metadata."""
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
