"""Decoded images, kept in a folder of this machine's user by the contents of their files.

An entry saves work and decides nothing: one that is absent, damaged or cannot be written means decoding, and a line in
the debug log. Processes may write the same entry at once.
"""

import contextlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

log = logging.getLogger(__name__)

VARIABLE = "AFFINITY_SEARCH_CACHE"  # names the folder instead
KEPT_S = 60 * 86_400  # an entry that nobody has used for so long goes when another is written
UNFINISHED_S = 86_400  # what a process that was killed left
ENTRY = re.compile(r"[0-9a-f]{24}-[0-9a-f]{40}\.(npy|json)(\.\w+\.tmp)?")

Pixels = tuple[NDArray[np.uint8], dict[int, str]]  # images, and why files are not among them, by their number


@dataclass(frozen=True)
class Key:
    """`outline` is of names and sizes, and tells without reading a file whether an entry may be there."""

    outline: str
    content: str

    @property
    def name(self) -> str:
        """Of the entry's files, without their ending."""
        return f"{self.outline}-{self.content}"


def outline(facts: Iterable[str]) -> str:
    """Of the files' names and sizes, and how they are read."""
    return _digest((fact.encode() for fact in facts), 12)


def content(facts: Iterable[bytes]) -> str:
    """Of what is in the files, in their order."""
    return _digest(facts, 20)


def may_hold(outline: str) -> bool:
    """Whether there is an entry of files of these names and sizes."""
    folder = _folder()
    try:
        return folder is not None and any(folder.glob(f"{outline}-*.json"))
    except OSError:
        return False


def load(key: Key) -> Pixels | None:
    """The entry, if it is there and whole; it counts as used today."""
    folder = _folder()
    if folder is None:
        return None
    told = folder / f"{key.name}.json"
    try:
        facts: Mapping[str, Any] = json.loads(told.read_text(encoding="utf-8"))
        images = np.load(folder / f"{key.name}.npy", allow_pickle=False)
        skipped = {int(number): str(reason) for number, reason in facts["skipped"].items()}
        if images.dtype != np.uint8 or images.ndim != 4 or _checksum(images) != facts["checksum"]:
            raise ValueError("its checksum is another")
    except Exception as error:  # a damaged file raises nearly anything
        log.debug("No images from the cache's entry %s: %s", told, error)
        return None
    with contextlib.suppress(OSError):
        os.utime(told)
    return images, skipped


def store(key: Key, pixels: Pixels) -> None:
    """Keep the images if that is possible, and remove entries that nobody uses."""
    folder = _folder()
    if folder is None:
        return
    images, skipped = pixels
    facts = {"checksum": _checksum(images), "shape": images.shape, "skipped": skipped}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(folder)
        with _replacing(folder / f"{key.name}.npy") as file:
            np.save(file, images, allow_pickle=False)
        with _replacing(folder / f"{key.name}.json") as file:  # the last: an entry without it is none
            file.write(json.dumps(facts).encode())
    except OSError as error:
        log.debug("Images are not kept in the cache %s: %s", folder, error)


def _folder() -> Path | None:
    if named := os.environ.get(VARIABLE):
        return Path(named)
    try:
        return platformdirs.user_cache_path("affinity-search", appauthor=False) / "images"
    except RuntimeError:  # a container's user id may have neither a name nor a home
        return None


def _digest(facts: Iterable[bytes], size: int) -> str:
    digest = blake2b(digest_size=size)
    for fact in facts:
        digest.update(len(fact).to_bytes(8, "little"))
        digest.update(fact)
    return digest.hexdigest()


def _checksum(images: NDArray[np.uint8]) -> str:
    digest = blake2b(repr(images.shape).encode(), digest_size=20)
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


@contextlib.contextmanager
def _replacing(path: Path) -> Any:
    """A file that takes the path's place once it is whole."""
    handle, name = tempfile.mkstemp(".tmp", f"{path.name}.", path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    now = time.time()
    for path in folder.iterdir():
        if not ENTRY.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):
            if path.suffix == ".tmp":
                used, kept = path.stat().st_mtime, UNFINISHED_S
            else:
                told = path.with_suffix(".json")  # its time is that of the last use
                used, kept = (told if told.exists() else path).stat().st_mtime, KEPT_S
            if now - used > kept:
                path.unlink()
