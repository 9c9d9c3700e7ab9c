"""Read a folder of image files: found, decoded by several threads, or taken from the cache."""

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.training.data.own import cache
from affinity_search.search.training.data.own.cache import Key, Pixels
from affinity_search.search.training.data.own.collection import Collection, Progress, Wanted, grouped
from affinity_search.search.training.data.own.decode import (
    HEAD,
    NO_IMAGE,
    VERSION,
    Unreadable,
    called_image,
    decode,
    may_be_image,
    opened,
)
from affinity_search.search.training.data.own.scan import File, Scan, scan
from affinity_search.search.training.errors import NAMED, DataError

MAX_BYTES = 1 << 29  # a file is held in memory while it is decoded
THREADS = 8  # at most; one more than there are cores, as files may lie on slow disks
CHUNK = 16  # files that a thread takes at once
PROGRESS_S = 0.1

T = TypeVar("T")


def read_folder(root: Path, wanted: Wanted, progress: Progress | None = None) -> Collection:
    """All images of `CLASS/…`, or of `train|validation|test/CLASS/…`, in the order of their paths.

    Images are stretched to the wanted size, their proportions are not kept. Their classes are the folders' names.
    `progress` is told of (files done, all files) now and then.
    Raises DataError with a line for each thing that is wrong, and ValueError without a size.
    """
    found = scan(root)
    if found.problems:
        raise found.refuse(*_without_readable(found))
    images, unread = read_files(found.files, wanted, progress)
    kept = [file for number, file in enumerate(found.files) if number not in unread]
    skipped = [*found.skipped, *((found.files[number].name, reason) for number, reason in unread.items())]
    skipped.sort(key=lambda entry: entry[0].split("/"))
    problems = [_unreadable_class(name) for name in sorted(found.classes - {file.class_name for file in kept})]
    if wanted.strict:
        problems += _strict_problems(skipped)
    groups = None
    if wanted.group is not None:
        groups, mistakes = grouped(wanted.group, [file.below for file in kept])
        problems += mistakes
    if problems:
        raise found.refuse(*problems)
    classes = tuple(sorted(found.classes))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[file.class_name] for file in kept], np.int32)
    parts = np.array([file.part for file in kept], np.uint8)
    return Collection(images, labels, parts, classes, groups, tuple(file.name for file in kept), tuple(skipped))


def read_files(
    files: Sequence[File], wanted: Wanted, progress: Progress | None = None, *, cached: bool = True
) -> Pixels:
    """The images of these files, uint8 (N, height, width, 1 or 3), and why others are not among them, by their index.

    From the cache, if it has the same names and contents. A file is read once, unless the cache has another set of
    files with the same names and sizes. With `cached` false nothing is looked up or kept there.
    Raises ValueError if `wanted` has no size, DataError if memory is short.
    """
    if wanted.size is None:
        raise ValueError("images in files are stretched to a size, and `wanted` has none")
    facts = [repr((VERSION, wanted.size, wanted.channels)), *(repr((file.name, file.size)) for file in files)]
    outline = cache.outline(facts)
    if cached and cache.may_hold(outline):
        digests = [_digest(_contents(file)) for file in told(files, _read, progress)]
        key = _key(outline, files, digests)
        if key is not None and (kept := cache.load(key)) is not None:
            return kept
    try:
        return _decoded(files, wanted, outline if cached else None, progress)
    except MemoryError:
        height, width = wanted.size
        raise DataError(
            f"{len(files)} images of {height}×{width} pixels do not fit into memory; choose a smaller size."
        ) from None


def _decoded(files: Sequence[File], wanted: Wanted, outline: str | None, progress: Progress | None) -> Pixels:
    assert wanted.size is not None
    size, channels = wanted.size, wanted.channels
    filling = _Filling(len(files), size, channels or 1)
    unread: dict[int, str] = {}
    digests: list[bytes | None] = []

    def work(file: File) -> tuple[bytes | None, NDArray[np.uint8] | str]:
        read = _read(file)
        contents = _contents(read)
        if read.reason is not None:
            return _digest(contents), read.reason
        try:
            return _digest(contents), decode(read.data, size, channels)
        except Unreadable as reason:
            return _digest(contents), str(reason)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of oddities that it reads all the same
        for number, (digest, made) in enumerate(told(files, work, progress)):
            digests.append(digest)
            if isinstance(made, str):
                unread[number] = made
            else:
                filling.add(made)
    pixels = filling.images, unread
    key = None if outline is None else _key(outline, files, digests)
    if key is not None and len(pixels[0]):
        cache.store(key, pixels)
    return pixels


class _Filling:
    """An array that images are put into. It gets three channels when the first image in colour comes."""

    def __init__(self, most: int, size: tuple[int, int], channels: int) -> None:
        self._array = np.empty((most, *size, channels), np.uint8)  # takes memory as it is written
        self._n = 0

    def add(self, image: NDArray[np.uint8]) -> None:
        if image.shape[2] > self._array.shape[3]:
            grey = self._array
            self._array = np.empty((*grey.shape[:3], 3), np.uint8)
            self._array[: self._n] = grey[: self._n]
        self._array[self._n] = image
        self._n += 1

    @property
    def images(self) -> NDArray[np.uint8]:
        """Those so far."""
        return self._array[: self._n]


@dataclass(frozen=True, slots=True)
class _Read:
    """A file's bytes, or its first ones and why it is no image."""

    data: bytes
    reason: str | None = None
    failed: bool = False  # perhaps not the next time


def _read(file: File) -> _Read:
    try:
        with open(file.path, "rb", buffering=0) as source:  # noqa: PTH123 - names may hold bytes that are no text
            head = source.read(HEAD)
            if not head:
                return _Read(head, "empty")
            if not may_be_image(head):
                return _Read(head, NO_IMAGE)
            if file.size > MAX_BYTES:
                return _Read(head, f"larger than {MAX_BYTES >> 20} MiB")
            return _Read(head + source.readall())
    except OSError as error:
        return _Read(b"", f"cannot be read ({error.strerror})", failed=True)


def _contents(read: _Read) -> bytes | None:
    return None if read.failed else read.data


def _digest(contents: bytes | None) -> bytes | None:
    return None if contents is None else blake2b(contents, digest_size=32).digest()


def _key(outline: str, files: Sequence[File], digests: Sequence[bytes | None]) -> Key | None:
    """None if a file could not be read: it may be readable the next time."""
    known = [digest for digest in digests if digest is not None]
    if len(known) < len(files):
        return None
    facts = (part for file, digest in zip(files, known, strict=True) for part in (file.name.encode(), digest))
    return Key(outline, cache.content(facts))


def told(files: Sequence[File], work: Callable[[File], T], progress: Progress | None) -> Iterator[T]:
    """What `work` makes of each file, in their order; `progress` hears of it in this thread."""
    last = time.monotonic()
    for done, made in enumerate(_each(files, work), start=1):
        yield made
        if progress is not None and (done == len(files) or time.monotonic() - last >= PROGRESS_S):
            progress(done, len(files))
            last = time.monotonic()


def _each(files: Sequence[File], work: Callable[[File], T]) -> Iterator[T]:
    """By several threads, of which none gets far ahead of who takes the results."""

    def several(chunk: Sequence[File]) -> list[T]:
        return [work(file) for file in chunk]

    threads = min(THREADS, _cores() + 1)
    chunks = (files[start : start + CHUNK] for start in range(0, len(files), CHUNK))
    pool = ThreadPoolExecutor(threads, "images")
    try:
        ahead: deque[Future[list[T]]] = deque(pool.submit(several, chunk) for chunk in islice(chunks, 2 * threads))
        while ahead:
            yield from ahead.popleft().result()
            ahead.extend(pool.submit(several, chunk) for chunk in islice(chunks, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    affinity: Any = getattr(os, "sched_getaffinity", None)  # not on macOS or Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _unreadable_class(name: str) -> str:
    return f"class {name} has no images that can be read"


def _without_readable(found: Scan) -> list[str]:
    """Of classes that have files: those of which no file begins as an image does."""
    readable: set[str] = set()
    for file in found.files:
        if file.class_name not in readable and _has_header(file):
            readable.add(file.class_name)
    return [_unreadable_class(name) for name in sorted({file.class_name for file in found.files} - readable)]


def _has_header(file: File) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened(file.path).close()
    except (Unreadable, OSError):
        return False
    return True


def _strict_problems(skipped: Sequence[tuple[str, str]]) -> list[str]:
    """Files that are no images and do not say so are nobody's loss."""
    lost = [f"{name}: {reason}" for name, reason in skipped if reason != NO_IMAGE or called_image(name)]
    more = len(lost) - NAMED
    return [*lost[:NAMED], *([f"and {more} more files that cannot be read"] if more > 0 else [])]
