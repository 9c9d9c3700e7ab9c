"""Files of a study, in a folder that its workers should share. Checkpoints are named by the place's number.

Names come from the study's random token. They never come from people's names or database ids: SQLite uses ids again.
The database decides everything; these files only save work.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from sqlalchemy.engine import URL

from affinity_search.storage.errors import StorageError
from affinity_search.storage.urls import is_sqlite, sqlite_path


def base_name(database: Path) -> str:
    """`studies` for `studies.db` and for its rescued copies (see `rescue`)."""
    return re.sub(r"(?<=.)(\.rescued(-\d+)?)+$", "", database.stem)


def files_of(database: Path) -> Path:
    """The folder `studies.files` for `studies.db`. A rescued copy uses the folder of its original."""
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
    """Make the folder if it is missing, and try to write in it. Returns the reason if that fails, else None."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))  # a full disk accepts an empty file
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside the file, of the same ending, to write to: it takes the file's place at the end of the context.

    After an error it is removed, and the old file stays: no reader sees half a file. A link stays; the file that it
    names is replaced. The new file has the mode of the old one, or the umask's. A device or pipe is written directly.

    Raises:
        StorageError: it cannot be written; the message names the file.
    """
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        path = path.resolve()
        draft = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(4)}{path.suffix[:20]}")
        try:
            yield draft
            if path.exists():
                draft.chmod(path.stat().st_mode & 0o777)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}; name another file with -o") from error


@dataclass(frozen=True)
class StudyFiles:
    """The files of the study with that token under `root` (--files)."""

    root: Path
    token: str

    @property
    def folder(self) -> Path:
        """The folder of this study alone."""
        return self.root / self.token

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints. Saving a checkpoint makes it."""
        return self.folder / "checkpoints"

    def checkpoint(self, place: int) -> Path:
        """The path of the place's last checkpoint, if it has one."""
        return self.checkpoints / f"{place}.npz"

    def history(self, key: str) -> Path:
        """The data for the pictures of the attempt with that random key."""
        return self.root / self.token / "histories" / f"{key}.json.gz"

    @property
    def logs(self) -> Path:
        """The folder of the logs: one folder for each launch."""
        return self.root / self.token / "logs"

    def drop_checkpoint(self, place: int) -> None:
        """Remove the checkpoint of a used place. If the folder cannot be written, the file stays."""
        self.sweep([place])

    def left_behind(self, used: Iterable[int]) -> list[Path]:
        """Files of used places that dead workers left. Nobody needs them."""
        over = {str(number) for number in used}
        # A worker that was killed while writing leaves an unfinished file, PLACE.npz.RANDOM.
        return sorted(path for path in self.checkpoints.glob("*.npz*") if path.name.partition(".")[0] in over)

    def sweep(self, used: Iterable[int]) -> list[Path]:
        """Remove these files, as far as permissions allow. Returns what was removed."""
        removed = []
        for path in self.left_behind(used):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                removed.append(path)
        return removed
