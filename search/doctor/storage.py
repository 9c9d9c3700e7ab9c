"""What `affinity-search doctor` looks at in the storage: the database, its clock, and the room for checkpoints."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from affinity_search.search.doctor.check import Check
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.database.failures import explain_late, first_line
from affinity_search.storage.database.patience import at_once
from affinity_search.storage.errors import NoDatabaseError, StorageError
from affinity_search.storage.files import StudyFiles, default_root
from affinity_search.storage.places.claims import Places
from affinity_search.storage.urls import parse_url

if TYPE_CHECKING:
    from affinity_search.storage.study import StoredStudy

ROUND_TRIPS = 5
MOST_CLOCK_DIFFERENCE_S = 2.0
WRITE_TRIES = 5  # of a second each, where another program holds the SQLite file
GIB, MIB = 2**30, 2**20
LEAST_FREE = 1 * GIB
LEAST_CHECKPOINTS = 20


def open_storage(url: str, study: str | None) -> tuple[Check, Backend | None]:
    """Whether the database exists. If no study was named, it need not exist yet."""
    try:
        backend = open_backend(url, create=False)
    except NoDatabaseError as error:
        return Check("storage", "warning" if study is None else "failed", str(error)), None
    except StorageError as error:
        return Check("storage", "failed", str(error)), None
    return Check("storage", "ok", f"{backend}, schema up to date"), backend


def driver_package(url: str) -> str | None:
    """The package that speaks with the database, if this program can install it."""
    try:
        return "psycopg" if parse_url(url).drivername == "postgresql+psycopg" else None
    except StorageError:
        return None


def check_database(backend: Backend) -> Iterator[Check]:
    """Checks its speed, its clock, and whether it takes writes."""
    backend.time()  # the first request opens the connection
    trips = [_round_trip(backend) for _ in range(ROUND_TRIPS)]
    took_s, ahead_s = min(trips)
    yield Check("round trip", "ok", f"{took_s * 1000:.1f} ms")
    yield _check_clock(took_s, ahead_s)
    yield check_writable(backend)


def _round_trip(backend: Backend) -> tuple[float, float]:
    """In seconds: how long the answer took, and by how much the database's clock is ahead of this machine's."""
    sent, before = time.time(), time.perf_counter()
    theirs = backend.time()
    took = time.perf_counter() - before
    return took, theirs - (sent + took / 2)


def _check_clock(took_s: float, ahead_s: float) -> Check:
    which = "ahead of" if ahead_s > 0 else "behind"
    if abs(ahead_s) - took_s / 2 <= MOST_CLOCK_DIFFERENCE_S:
        return Check("clock", "ok", f"the clocks of the database and of this machine differ by {abs(ahead_s):.1f} s")
    found = f"the database's clock is {abs(ahead_s):.1f} s {which} this machine's"
    advice = "set this machine's clock (NTP); leases follow the database's and are safe, but times shown here are wrong"
    return Check("clock", "warning", found, advice)


def check_writable(backend: Backend) -> Check:
    for _ in range(WRITE_TRIES):
        try:
            with at_once():
                backend.prove_writable()
        except Exception as error:
            if explain_late(error) is None:
                raise
            line = first_line(error)
            if "locked" in line:
                continue
            advice = "check the permissions, and whether the server is a read-only copy"
            return Check("writing", "failed", f"the database takes no writes: {line}", advice)
        else:
            return Check("writing", "ok", "the database takes writes")
    found = f"another program has been locking the database for over {WRITE_TRIES} s"
    return Check("writing", "failed", found, "close that program: until then nothing can be trained")


def files_root(url: str, files: Path | None) -> Path | None:
    """The folder of checkpoints: --files, or the default folder of the storage; None if that is unknown."""
    if files is not None:
        return files
    try:
        return default_root(parse_url(url))
    except StorageError:
        return None


def check_files(root: Path, study: StoredStudy | None) -> Check:
    """Checks the room for checkpoints under `root`, which need not exist yet. With a study: for the checkpoints of
    that.
    """
    folder = StudyFiles(root, study.token).checkpoints if study else root
    try:
        free = _free_bytes(folder)
    except OSError as error:
        found = f"{error.filename or folder} cannot be written ({error.strerror or error})"
        advice = "training goes on without checkpoints; make the folder writable, or name another with --files"
        return Check("files", "failed", found, advice)
    found = f"{root}{'' if root.exists() else ' (made when needed)'}, {free / GIB:.1f} GiB free"
    need = LEAST_FREE
    if study is not None:
        size = largest_checkpoint(folder)
        found += f"; a checkpoint takes {size / MIB:.1f} MiB" if size else ""
        need = max(need, LEAST_CHECKPOINTS * size * max(1, Places.of(study).counts().running))
    if free < need:
        advice = f"make room for {need / GIB:.1f} GiB, or name another folder with --files"
        return Check("files", "warning", found, advice)
    return Check("files", "ok", found)


def _free_bytes(folder: Path) -> int:
    """The free bytes where the folder is or would be made. Writes a test file there and removes it."""
    present = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=present, prefix=".affinity-search-doctor-") as file:
            file.write(b"room")
            file.flush()
    except OSError as error:  # its own name would be that of the temporary file
        raise OSError(error.errno, error.strerror, str(present)) from error
    return shutil.disk_usage(present).free


def largest_checkpoint(folder: Path) -> int:
    """The size of the largest checkpoint in bytes; 0 if there is none yet."""
    sizes = [0]
    for path in folder.glob("*.npz"):
        with contextlib.suppress(OSError):  # its trial has just ended
            sizes.append(path.stat().st_size)
    return max(sizes)
