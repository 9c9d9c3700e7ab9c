"""Files that belong to a trial and are worth looking at: one folder for all studies, named by random ids."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from optuna.artifacts import FileSystemArtifactStore


class _LazyFolder(FileSystemArtifactStore):
    """Makes its folder when the first file comes: who only looks leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        super().write(artifact_id, content_body)


def artifact_store_for(root: Path) -> FileSystemArtifactStore:
    """The store under `root` (--files). Ids are Optuna's random ones: studies share the folder without meeting."""
    return _LazyFolder(root / "artifacts")
