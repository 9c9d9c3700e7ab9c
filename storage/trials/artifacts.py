"""Files of trials for people to look at. One folder holds those of all studies, named by random ids."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore

# The key of a record among a trial's system attributes (Optuna 5.0.0: optuna.artifacts._upload.ARTIFACTS_ATTR_PREFIX).
RECORD_PREFIX = "artifacts:"


class LazyFolder(FileSystemArtifactStore):
    """An artifact store that makes its folder for the first file, so reading leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        super().write(artifact_id, content_body)


def artifacts_folder(root: Path) -> Path:
    """The folder of the files under `root` (--files)."""
    return root / "artifacts"


def records(token: str, key: str, names: Sequence[str]) -> dict[str, str]:
    """System attributes by which the dashboard and Optuna find the files of the attempt with that random key.

    They are written with the trial, because a finished one takes none. The files may come later, or never. An id is the
    study's token, the key and the file's number. The dashboard shows files in the order of their ids.
    """
    written = {}
    for number, name in enumerate(names):
        artifact_id = f"{token}-{key}-{number}"
        mimetype = mimetypes.guess_type(name)[0] or "application/octet-stream"
        written[RECORD_PREFIX + artifact_id] = json.dumps(asdict(ArtifactMeta(artifact_id, name, mimetype, None)))
    return written
