"""The logs of workers. Each launch has a folder among the study's files; the last few folders are kept.

Logs only inform. If they cannot be written, the search goes on without them.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from affinity_search.storage.files import StudyFiles

KEPT = 5  # launches on one machine


def new_folder(files: StudyFiles, say: Callable[[str], None]) -> Path:
    """The folder for this launch's logs. `say` tells if it is not among the study's files."""
    folder = files.logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{_here()}-{os.getpid()}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        elsewhere = _temporary()
        where = elsewhere or "nowhere"
        say(f"logs cannot be kept in {files.logs} ({error.strerror}); they are in {where}")
        return elsewhere or folder
    for former in [one for one in folders(files) if _is_over(one)][KEPT - 1 :]:
        shutil.rmtree(former, ignore_errors=True)
    return folder


def folders(files: StudyFiles) -> list[Path]:
    """The log folders of launches on this machine, the newest first."""
    try:
        return sorted(files.logs.glob(f"*-{_here()}-*"), reverse=True)
    except OSError:
        return []


def _here() -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in socket.gethostname()[:40])


def _is_over(folder: Path) -> bool:
    number = folder.name.rpartition("-")[2]
    return number.isdecimal() and not psutil.pid_exists(int(number))


def _temporary() -> Path | None:
    try:
        return Path(tempfile.mkdtemp(prefix="affinity-search-"))
    except OSError:
        return None
