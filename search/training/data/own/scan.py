"""Which files a folder of images holds: their classes and parts, by the folders that they lie in. No file is opened.

Either `CLASS/…`, or `train|validation|test/CLASS/…` with some of the parts. Folders may lie below a class's.
"""

import os
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from affinity_search.search.training.data.own.collection import PARTS, report
from affinity_search.search.training.data.own.decode import NO_IMAGE, called_image
from affinity_search.search.training.errors import DataError, MissingDataError, listed

PART_FOLDERS = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("validation", "val", "valid"), 1),
    **dict.fromkeys(("test", "testing"), 2),
}
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx")
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


@dataclass(frozen=True, slots=True)
class File:
    """A file that may be an image."""

    path: str
    name: str  # relative to the root, with /; bytes that are no text are escaped
    below: str  # the name within the class's folder
    class_name: str
    part: int  # index into PARTS
    size: int  # bytes


@dataclass(frozen=True)
class Scan:
    """All files below a root in sorted order, and what is wrong with their places."""

    root: Path
    divided: bool
    files: list[File] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)  # also of folders without a file
    problems: list[str] = field(default_factory=list)

    def refuse(self, *more: str) -> DataError:
        """All of it as one error."""
        return report(shown(os.fspath(self.root)), [*self.problems, *more])


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    name: str
    is_folder: bool
    size: int


def shown(name: str) -> str:
    """As text that every terminal and file takes: the same however a machine writes é, other bytes escaped."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def scan(root: Path) -> Scan:
    """Find the files. Raises DataError if there is no such folder; what else is wrong is in `problems`."""
    _check_folder(root)
    skipped: list[tuple[str, str]] = []
    top = list(_entries(os.fspath(root), "", skipped))
    folders = [entry for entry in top if entry.is_folder]
    named = [entry for entry in folders if entry.name.lower() in PART_FOLDERS]
    # A class may be called `test` or `train`: then images lie in it, and no folders.
    divided = bool(named) and (len(named) == len(folders) or not all(map(_is_class, named)))
    found = Scan(root, divided, skipped=skipped)
    _beside(found, "", top)
    if divided:
        _add_parts(found, named, [entry.name for entry in folders if entry not in named])
    else:
        for entry in folders:
            _add_class(found, entry, "", 0)
    _judge(found, folders)
    found.files.sort(key=lambda file: file.name.split("/"))
    return found


def walk(root: Path) -> tuple[list[File], list[tuple[str, str]]]:
    """All files of a folder and of those in it, as of one class, and what was left out: (path, reason). Sorted."""
    skipped: list[tuple[str, str]] = []
    found = _below(os.fspath(root), shown(os.fspath(root)), skipped, (_identity(os.fspath(root)),))
    return [File(entry.path, name, name, "", 0, entry.size) for entry, name in found], skipped


def _check_folder(root: Path) -> None:
    name = shown(os.fspath(root))
    if not root.exists():
        raise MissingDataError(f"Images were looked for in {name}, and there is no such folder; check the path.")
    if root.is_dir():
        return
    if root.name.lower().endswith(ARCHIVES) or zipfile.is_zipfile(root) or tarfile.is_tarfile(root):
        raise DataError(f"{name} is an archive; unpack it and give the folder that holds the class folders.")
    raise DataError(f"{name} is a file; give the folder that holds the class folders. An archive must be unpacked.")


def _add_parts(found: Scan, named: list[_Entry], others: list[str]) -> None:
    if others:
        found.problems.append(
            f"beside {listed((entry.name for entry in named), len(named))} there are other folders: "
            f"{listed(others)}; move them elsewhere"
        )
    for part in range(len(PARTS)):
        twice = [entry.name for entry in named if PART_FOLDERS[entry.name.lower()] == part]
        if len(twice) > 1:
            found.problems.append(f"{listed(twice)} are folders of the same part; put them into one")
    for entry in named:
        inside = list(_entries(entry.path, entry.name, found.skipped))
        _beside(found, f"{entry.name}/", inside)
        for each in inside:
            if each.is_folder:
                _add_class(found, each, f"{entry.name}/", PART_FOLDERS[entry.name.lower()])


def _add_class(found: Scan, folder: _Entry, prefix: str, part: int) -> None:
    found.classes.add(folder.name)
    start = f"{prefix}{folder.name}"
    for entry, name in _below(folder.path, start, found.skipped, (_identity(folder.path),)):
        found.files.append(File(entry.path, name, name[len(start) + 1 :], folder.name, part, entry.size))


def _beside(found: Scan, prefix: str, entries: list[_Entry]) -> None:
    files = [entry.name for entry in entries if not entry.is_folder]
    images = [name for name in files if called_image(name)]
    if images:
        where = f"in {prefix}, " if prefix else ""
        found.problems.append(
            f"{where}beside the class folders, there {'are' if len(images) > 1 else 'is'} {len(images)} "
            f"image{'s' * (len(images) > 1)}: {listed(images)}; move each into the folder of its class"
        )
    found.skipped.extend((prefix + name, NO_IMAGE) for name in files if not called_image(name))


def _judge(found: Scan, folders: list[_Entry]) -> None:
    full = {file.class_name for file in found.files}
    if not found.classes:
        found.problems.append("there are no class folders; put the images of each class into a folder of its own")
    elif len(found.classes) == 1:
        only = next(iter(found.classes))
        nested = not found.divided and any(entry.is_folder for entry in _entries(folders[0].path, "", []))
        hint = f"; if its folders are the classes, give {only} instead" if nested else ""
        found.problems.append(f"there is one class only, {only}; a network learns to tell at least two apart{hint}")
    for name in sorted(found.classes - full):
        found.problems.append(f"class {name} has no images")


def _below(
    folder: str, prefix: str, skipped: list[tuple[str, str]], above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[_Entry, str]]:
    """All files of a folder and of those in it. `above` are the folders that it lies in, however it was reached."""
    for entry in _entries(folder, prefix, skipped):
        name = f"{prefix}/{entry.name}"
        if not entry.is_folder:
            yield entry, name
        elif (identity := _identity(entry.path)) in above:
            skipped.append((name, "a link to a folder that it lies in"))
        else:
            yield from _below(entry.path, name, skipped, (*above, identity))


def _entries(folder: str, prefix: str, skipped: list[tuple[str, str]]) -> Iterator[_Entry]:
    """What lies in a folder, hidden and system files left out. Links count as what they lead to."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: shown(entry.name))
    except OSError as error:
        skipped.append((prefix or ".", f"a folder that cannot be opened ({error.strerror})"))
        return
    for entry in entries:
        name = shown(entry.name)
        if name.startswith(".") or name.lower() in SYSTEM_FILES:
            continue
        path = f"{prefix}/{name}" if prefix else name
        try:
            is_folder, is_file, size = entry.is_dir(), entry.is_file(), entry.stat().st_size
        except OSError as error:
            broken = "a link that leads nowhere" if entry.is_symlink() else f"cannot be opened ({error.strerror})"
            skipped.append((path, broken))
            continue
        if is_folder or is_file:
            yield _Entry(entry.path, name, is_folder, size)
        else:
            skipped.append((path, "not a regular file"))


def _identity(path: str) -> tuple[int, int]:
    found = Path(path).stat()
    return found.st_dev, found.st_ino


def _is_class(folder: _Entry) -> bool:
    entries = list(_entries(folder.path, "", []))
    return any(called_image(entry.name) for entry in entries) and not any(entry.is_folder for entry in entries)
