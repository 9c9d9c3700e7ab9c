"""What `affinity-search doctor` looks at on this machine: Python, packages, devices, data. Imports no backend."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from affinity_search.search import devices
from affinity_search.search.devices import nvidia
from affinity_search.search.devices import slots as accelerators
from affinity_search.search.devices.kinds import ACCELERATORS, CPU, GPU, KINDS, Kind
from affinity_search.search.doctor.check import Check
from affinity_search.search.launch.children import SAFE, surroundings
from affinity_search.search.view.terminal import plural
from affinity_search.search.worker.images import folder_for, read_splits, refuse_others
from affinity_search.studies.data import SourceDefinition, published
from affinity_search.studies.errors import StudyFileError

if TYPE_CHECKING:
    from affinity_search.search.training.data.splits import Part, Split
    from affinity_search.storage.study import StoredStudy
    from affinity_search.studies.model.spec import StudySpec

PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that pyproject.toml admits
MEND_DRIVER = "restart the driver or the machine; or launch with --devices cpu"
ABSENT_ADVICE = "put the files there, name another --data-dir, or leave --data-dir out: Keras downloads what it needs"
PROBE_LIMIT_S = 300.0
# Keras compiles and runs one product on the device, as a worker's first step would.
PROBE = """
import sys
from affinity_search.search import devices
device = devices.configure(sys.argv[1], int(sys.argv[2]) or None)
from keras import ops
assert float(ops.sum(ops.matmul(ops.ones((8, 8)), ops.ones((8, 8))))) == 512.0
print(device.describe())
"""


def check_machine(stored: StoredStudy | None, data_dir: Path | None, driver: str | None) -> Iterator[Check]:
    """Each check as soon as it is done. With a study only its own data is checked. `driver` is the package that speaks
    with the database.
    """
    yield check_python()
    yield check_packages(driver)
    yield check_devices()
    yield from check_data(stored.spec if stored else None, data_dir, stored)


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    shown = ".".join(map(str, version))
    if PYTHONS[0] <= version[:2] <= PYTHONS[1]:
        return Check("python", "ok", f"{shown}, {sys.executable}")
    oldest, newest = (".".join(map(str, one)) for one in PYTHONS)
    found = f"{shown} is not supported; TensorFlow has builds for {oldest} to {newest}"
    return Check("python", "failed", found, f"make another environment: python{newest} -m venv .venv")


def check_packages(driver: str | None) -> Check:
    """Reads the metadata of the packages. Whether they can be imported is what --probe finds out."""
    found = devices.versions()
    backend = found["backend"]
    if backend not in devices.TRAINING_BACKENDS:
        return Check(
            "packages",
            "failed",
            f"Keras is set to the backend {backend!r}, but training needs {' or '.join(devices.TRAINING_BACKENDS)}",
            "set KERAS_BACKEND to tensorflow, or leave it out",
        )
    own = {name: found[name] for name in ("affinity-search", "optuna", "numpy", "scikit-learn")}
    own |= {name: _version(name) for name in ("sqlalchemy", *([driver] if driver else []))}
    text = f"keras {found['keras']} on {backend} {found['backend_version']}, "
    text += ", ".join(f"{name} {version}" for name, version in own.items())
    command = _install_command(backend, found["backend_version"], [n for n, v in own.items() if v == "not installed"])
    return Check("packages", "failed" if command else "ok", text, command)


def _install_command(backend: str, version: str, missing: list[str]) -> str | None:
    """The command that installs what is missing; None if nothing is missing."""
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
        if nvidia.gpus():  # hidden ones too
            return GPU.extra
    return next((kind.extra for kind in ACCELERATORS if kind is not GPU and kind.is_here()), CPU.extra)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def check_devices() -> Check:
    """What `launch --devices auto` would use, and whether the installed TensorFlow can."""
    try:
        gpus = nvidia.gpus()
    except nvidia.NoSuchDeviceError as error:
        return Check("devices", "failed", str(error), MEND_DRIVER)
    try:
        seen = nvidia.visible(gpus)
    except nvidia.NoSuchDeviceError as error:
        return Check("devices", "failed", str(error))
    others = {kind: kind.is_here() for kind in ACCELERATORS if kind is not GPU}
    parts = [_gpus_text(gpus, seen), *(f"{'a' if here else 'no'} {kind.shown}" for kind, here in others.items())]
    found = ", ".join([*parts, plural(accelerators.cpu_cores(), "CPU core")])
    if any(gpu.lost for gpu in gpus):
        useless = seen and all(gpu.lost for gpu in seen)
        return Check("devices", "failed" if useless else "warning", found, MEND_DRIVER)
    return _check_build(found, [GPU] * bool(seen) + [kind for kind, here in others.items() if here])


def _gpus_text(gpus: list[nvidia.Gpu], seen: list[nvidia.Gpu]) -> str:
    names = [gpu.name for gpu in gpus if not gpu.lost]
    parts = [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
    parts += [f"{gpu.label} lost ({gpu.lost})" for gpu in gpus if gpu.lost]
    if len(seen) < len(gpus):
        shown = ", ".join(gpu.label for gpu in seen) or "none"
        parts.append(f"{nvidia.VISIBLE} {os.environ[nvidia.VISIBLE]!r} shows {shown}")
    return ", ".join(parts) or "no GPU"


def _check_build(found: str, here: list[Kind]) -> Check:
    """Whether the installed TensorFlow computes on the best of the accelerators that are here."""
    known = {package for kind in KINDS for package in kind.builds}
    installed = {package for package in known if _version(package)[0].isdigit()}
    if devices.backend() != "tensorflow" or not installed or not here or installed & here[0].builds:
        return Check("devices", "ok", found)
    package, kind = min(installed), here[0]
    found += f"; the installed {package} does not compute on a {kind.shown}"
    return Check("devices", "warning", found, _replace(package, kind.extra))


def _replace(package: str, extra: str) -> str:
    return f"pip uninstall {package}, then pip install 'affinity-search[{extra}]'; or launch with --devices cpu"


def probe() -> Check:
    """Compute something on the device that the first worker would get, in a process of its own."""
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
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}, and no message"])[-1]
    extra = f"install the build for this machine: pip install 'affinity-search[{_fitting_extra()}]'"
    return Check("probe", "failed", f"{devices.backend()} on {slot.label}: {last}", extra)


def check_data(spec: StudySpec | None, data_dir: Path | None, stored: StoredStudy | None = None) -> Iterator[Check]:
    """Read the parts of the data that the study uses. Without a study, read every data set that is here."""
    if spec is None:
        yield from _all_sets(data_dir)
        return
    try:
        given = folder_for(spec, data_dir, stored, lambda _: None)
    except StudyFileError as error:
        yield Check(f"data {spec.data.set}", "failed", error.mistakes[0])
        return
    yield _of_study(spec, given, stored)


def _of_study(spec: StudySpec, given: Path | None, stored: StoredStudy | None) -> Check:
    from affinity_search.search.training.data.splits import contents_of
    from affinity_search.search.training.errors import DataError

    data, name = spec.data, f"data {spec.data.set}"
    folder = _folder(data.source, given)
    if given is None and folder is not None and not folder.is_dir():
        return _not_downloaded(data.set)

    def seen(part: Part, split: Split) -> None:
        if stored:
            refuse_others(stored, part, contents_of(split, data.source.n_classes))

    try:
        train, scored = read_splits(spec, folder, seen)
    except DataError as error:
        return _not_downloaded(data.set) if given is None and _is_absent(error) else Check(name, "failed", str(error))
    purpose = "test" if spec.protocol == "article" else "validation"
    return Check(name, "ok", f"{len(train)} training and {len(scored)} {purpose} images, {_where(data.source, folder)}")


def _all_sets(data_dir: Path | None) -> Iterator[Check]:
    checks = {source: _any(source, data_dir) for source in published()}
    # If one set is in the folder, the others need not be there.
    there = any(check.status == "ok" for source, check in checks.items() if source.part_of is None)
    yield from (
        replace(check, status="warning") if there and check.next == ABSENT_ADVICE else check
        for check in checks.values()
    )


def _any(source: SourceDefinition, data_dir: Path | None) -> Check:
    from affinity_search.search.training.data.splits import load_test, load_train
    from affinity_search.search.training.errors import DataError

    name, given = source.name, None if source.part_of else data_dir
    folder = _folder(source, given)
    if given is None and folder is not None and not folder.is_dir():
        return _not_downloaded(name)
    try:
        images = f"{len(load_train(source, folder))} training and {len(load_test(source, folder))} test images"
    except DataError as error:
        if not _is_absent(error):
            return Check(f"data {name}", "failed", str(error))
        return _not_downloaded(name) if given is None else _not_in(name, given)
    return Check(f"data {name}", "ok", f"{images}, {_where(source, folder)}")


def _not_in(name: str, given: Path) -> Check:
    return Check(f"data {name}", "failed", f"not in {given}", ABSENT_ADVICE)


def _is_absent(error: Exception) -> bool:
    from affinity_search.search.training.errors import MissingDataError

    return isinstance(error, MissingDataError)


def _folder(source: SourceDefinition, given: Path | None) -> Path | None:
    """The folder of a set's files: the given one, or else Keras' cache. Own data always have a given one."""
    if source.own is not None:
        return given
    from affinity_search.search.training.data import READERS

    cached = READERS[source.name].cached
    return given if given is not None or cached is None else cached()


def _not_downloaded(name: str) -> Check:
    found = f"not in Keras' cache {devices.keras_home() / 'datasets'}"
    return Check(
        f"data {name}", "warning", found, "Keras will download it; without a network, name a folder with --data-dir"
    )


def _where(source: SourceDefinition, folder: Path | None) -> str:
    return f"read from {folder}" if folder else f"part of {source.part_of}"
