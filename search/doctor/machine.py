"""What `affinity-search doctor` looks at on this machine: Python, packages, devices, data. Imports no backend."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from search import accelerators, devices, nvidia
from search.children import SAFE, surroundings
from search.doctor.check import Check
from search.view import plural

if TYPE_CHECKING:
    from studies.spec import StudySpec

PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that pyproject.toml admits
MEND_DRIVER = "restart the driver or the machine; or launch with --devices cpu"
SETS = ("digits", "mnist", "cifar10")
PROBE_LIMIT_S = 300.0
# Keras compiles and runs one product on the device, as a worker's first step would.
PROBE = """
import sys
from search import devices
devices.configure(sys.argv[1], int(sys.argv[2]) or None)
from keras import ops
assert float(ops.sum(ops.matmul(ops.ones((8, 8)), ops.ones((8, 8))))) == 512.0
print(devices.describe())
"""


def check_machine(spec: StudySpec | None, data_dir: Path | None, driver: str | None) -> Iterator[Check]:
    """Each check as it is done. `spec` limits the data to the study's; `driver` is the package of the storage's."""
    yield check_python()
    yield check_packages(driver)
    yield check_devices()
    yield from check_data(spec, data_dir)


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    shown = ".".join(map(str, version))
    if PYTHONS[0] <= version[:2] <= PYTHONS[1]:
        return Check("python", "ok", f"{shown}, {sys.executable}")
    oldest, newest = (".".join(map(str, one)) for one in PYTHONS)
    found = f"{shown} is not supported; TensorFlow has builds for {oldest} to {newest}"
    return Check("python", "failed", found, f"make an environment of its own: python{newest} -m venv .venv")


def check_packages(driver: str | None) -> Check:
    """From the packages' metadata: what cannot be imported is found by --probe."""
    found = devices.versions()
    backend = found["backend"]
    if backend not in devices.TRAINING_BACKENDS:
        return Check(
            "packages",
            "failed",
            f"Keras is set to the backend {backend!r}, which trains nothing here",
            f"set KERAS_BACKEND, or `backend` in {devices.keras_home() / 'keras.json'}, to tensorflow",
        )
    own = {name: found[name] for name in ("affinity-search", "optuna", "numpy", "scikit-learn")}
    own |= {name: _version(name) for name in ("sqlalchemy", *([driver] if driver else []))}
    text = f"keras {found['keras']} on {backend} {found['backend_version']}, "
    text += ", ".join(f"{name} {version}" for name, version in own.items())
    command = _install_command(backend, found["backend_version"], [n for n, v in own.items() if v == "not installed"])
    return Check("packages", "failed" if command else "ok", text, command)


def _install_command(backend: str, version: str, missing: list[str]) -> str | None:
    """What installs all that is missing; None if nothing is."""
    extras = [extra for package, extra in (("psycopg", "postgres"),) if package in missing]
    if version == "not installed" and backend != "tensorflow":
        return f"pip install {backend}, or set KERAS_BACKEND=tensorflow"
    if version == "not installed":
        extras.insert(0, _fitting_extra())
    if extras:
        return f"pip install 'affinity-search[{','.join(extras)}]'"
    return f"pip install {' '.join(missing)}" if missing else None


def _fitting_extra() -> str:
    """The extra with the TensorFlow build for what this machine has."""
    with contextlib.suppress(nvidia.NoSuchDeviceError):
        if nvidia.gpus():
            return "gpu"
    return "tpu" if accelerators.has_tpu() else "cpu"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def check_devices() -> Check:
    """What `launch --devices auto` would use, and whether the installed TensorFlow can."""
    try:
        gpus, tpu = nvidia.gpus(), accelerators.has_tpu()
    except nvidia.NoSuchDeviceError as error:
        return Check("devices", "failed", str(error), MEND_DRIVER)
    try:
        seen = nvidia.visible(gpus)
    except nvidia.NoSuchDeviceError as error:
        return Check("devices", "failed", str(error))
    cores = plural(accelerators.cpu_cores(), "CPU core")
    found = f"{_gpus_text(gpus, seen)}, {'a TPU' if tpu else 'no TPU'}, {cores}"
    if any(gpu.lost for gpu in gpus):
        useless = seen and all(gpu.lost for gpu in seen)
        return Check("devices", "failed" if useless else "warning", found, MEND_DRIVER)
    return _check_build(found, bool(seen), tpu)


def _gpus_text(gpus: list[nvidia.Gpu], seen: list[nvidia.Gpu]) -> str:
    names = [gpu.name for gpu in gpus if not gpu.lost]
    parts = [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
    parts += [f"{gpu.label} lost ({gpu.lost})" for gpu in gpus if gpu.lost]
    if len(seen) < len(gpus):
        shown = ", ".join(gpu.label for gpu in seen) or "none"
        parts.append(f"{nvidia.VISIBLE} {os.environ[nvidia.VISIBLE]!r} shows {shown}")
    return ", ".join(parts) or "no GPU"


def _check_build(found: str, gpus: bool, tpu: bool) -> Check:
    """Whether the installed TensorFlow is made for what was found."""
    installed = {name for name in ("tensorflow", "tensorflow-cpu", "tensorflow-tpu") if _version(name)[0].isdigit()}
    if devices.backend() != "tensorflow" or not installed:
        return Check("devices", "ok", found)
    if gpus and installed == {"tensorflow-cpu"}:
        found += "; the installed tensorflow-cpu computes on the CPU only"
        return Check("devices", "warning", found, _replace("tensorflow-cpu", "gpu"))
    if tpu and not gpus and "tensorflow-tpu" not in installed:
        found += f"; the installed {min(installed)} knows no TPU of this machine"
        return Check("devices", "warning", found, _replace(min(installed), "tpu"))
    return Check("devices", "ok", found)


def _replace(package: str, extra: str) -> str:
    return f"pip uninstall {package}, then pip install 'affinity-search[{extra}]'; or launch with --devices cpu"


def probe() -> Check:
    """Import the backend and compute, in a process of its own, on the device that a first worker would get."""
    try:
        slot = accelerators.plan("auto", None)[0]
    except nvidia.NoSuchDeviceError as error:
        return Check("probe", "failed", f"not tried: {error}")
    command = [sys.executable, SAFE, "-c", PROBE, slot.device, str(slot.threads or 0)]
    try:
        done = subprocess.run(
            command,
            env=surroundings() | slot.environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        found = f"no answer from {slot.label} within {PROBE_LIMIT_S:.0f} s"
        return Check("probe", "failed", found, "is another program using the device?")
    if done.returncode == 0:
        return Check("probe", "ok", f"computed on {done.stdout.strip()} by {devices.backend()}")
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}, without a word"])[-1]
    extra = f"install the build for this machine: pip install 'affinity-search[{_fitting_extra()}]'"
    return Check("probe", "failed", f"{devices.backend()} on {slot.label}: {last}", extra)


def check_data(spec: StudySpec | None, data_dir: Path | None) -> Iterator[Check]:
    """The study's own set as a worker reads it; without a study whether the files of every set are there."""
    for name in (spec.data.set,) if spec else SETS:
        folder = None if name == "digits" else data_dir or _keras_folder(name)
        missing = next((path for path in _files(name, folder) if not path.is_file()), None)
        if missing is not None:
            yield _missing(name, missing, data_dir)
        else:
            yield _loaded(spec, folder) if spec else Check(f"data {name}", "ok", _where(folder))


def _keras_folder(name: str) -> Path:
    """Where Keras' cache holds the same files as a --data-dir."""
    cache = devices.keras_home() / "datasets"
    return cache / "cifar-10-batches-py-target" if name == "cifar10" else cache


def _files(name: str, folder: Path | None) -> list[Path]:
    from search.training import readers

    if folder is None:
        return []
    if name == "mnist":
        return [folder / "mnist.npz"]
    inside = folder / readers.CIFAR_FOLDER
    batches = inside if inside.is_dir() else folder
    return [batches / file for part in readers.CIFAR_FILES.values() for file in part]


def _missing(name: str, path: Path, data_dir: Path | None) -> Check:
    if data_dir is None:
        found = f"not in Keras' cache {devices.keras_home() / 'datasets'}"
        return Check(f"data {name}", "warning", found, "Keras will download it; without a network name a --data-dir")
    advice = "put it there, name another --data-dir, or leave that out: Keras downloads what it needs"
    return Check(f"data {name}", "failed", f"{path} is not there", advice)


def _loaded(spec: StudySpec, folder: Path | None) -> Check:
    from search.training.datasets import search_splits
    from search.training.errors import DataError

    data = spec.data
    try:
        train, scored = search_splits(data.set, data.minority, data.validation or 0.0, spec.protocol, spec.seed, folder)
    except DataError as error:
        return Check(f"data {data.set}", "failed", str(error))
    purpose = "test" if spec.protocol == "article" else "validation"
    found = f"{len(train)} training and {len(scored)} {purpose} images, {_where(folder)}"
    return Check(f"data {data.set}", "ok", found)


def _where(folder: Path | None) -> str:
    return f"read from {folder}" if folder else "part of scikit-learn"
