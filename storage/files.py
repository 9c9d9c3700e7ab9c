"""Files of a study, in a folder that its workers share if they can: checkpoints by the place's number.

Names come from the study's random token: never from what people choose, never from database ids, which SQLite uses
again. What decides anything is in the database; these files only spare work.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from sqlalchemy.engine import URL

from affinity_search.storage.urls import is_sqlite, sqlite_path


def base_name(database: Path) -> str:
    """`studies` for `studies.db`, and for its rescued copies too (see `rescue`)."""
    return re.sub(r"(?<=.)(\.rescued(-\d+)?)+$", "", database.stem)


def files_of(database: Path) -> Path:
    """`studies.db` has `studies.files`, and a rescued copy goes on with the checkpoints of what it is a copy of."""
    return database.with_name(f"{base_name(database)}.files")


def default_root(url: URL) -> Path:
    """Beside the SQLite file (see `files_of`), else this machine's folder for the user's data."""
    if is_sqlite(url):
        return files_of(sqlite_path(url))
    try:
        return platformdirs.user_data_path("affinity-search", appauthor=False)
    except RuntimeError:  # a container's user id may have neither a name nor a home
        return Path(tempfile.gettempdir()) / f"affinity-search-{os.getuid()}"


def why_not_writable(folder: Path) -> str | None:
    """Tries it, and makes the folder if it is not there: the reason, or None if all is well."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))  # a full disk takes an empty file
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


@dataclass(frozen=True)
class StudyFiles:
    """The files of the study with that token under `root` (--files)."""

    root: Path
    token: str

    @property
    def folder(self) -> Path:
        """All that is the study's alone."""
        return self.root / self.token

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints; `save` of a checkpoint makes it."""
        return self.folder / "checkpoints"

    def checkpoint(self, place: int) -> Path:
        """Where the place's last checkpoint is, if it has one."""
        return self.checkpoints / f"{place}.npz"

    def history(self, key: str) -> Path:
        """What the pictures of the attempt with that random key are drawn from."""
        return self.root / self.token / "histories" / f"{key}.json.gz"

    @property
    def logs(self) -> Path:
        """A folder for each launch."""
        return self.root / self.token / "logs"

    def drop_checkpoint(self, place: int) -> None:
        """The place is used: nobody will take it up again. A folder that cannot be written keeps it."""
        self.sweep([place])

    def left_behind(self, used: Iterable[int]) -> list[Path]:
        """Files of used places, which workers that died left: nobody needs them."""
        over = {str(number) for number in used}
        # A worker killed while writing leaves its unfinished file, PLACE.npz.RANDOM.
        return sorted(path for path in self.checkpoints.glob("*.npz*") if path.name.partition(".")[0] in over)

    def sweep(self, used: Iterable[int]) -> list[Path]:
        """Remove what is left behind, as far as the folder lets us; returns what was removed."""
        removed = []
        for path in self.left_behind(used):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                removed.append(path)
        return removed
