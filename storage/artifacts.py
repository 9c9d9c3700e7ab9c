"""Files that belong to a trial and are worth looking at: one folder for all studies, named by random ids."""

from __future__ import annotations

import contextlib
import io
import json
import mimetypes
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage

from storage.patience import at_once

# The key of a record among a trial's system attributes (Optuna 5.0.0: optuna.artifacts._upload.ARTIFACTS_ATTR_PREFIX).
RECORD_PREFIX = "artifacts:"


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


def upload(
    store: FileSystemArtifactStore, storage: BaseStorage, trial_id: int, prefix: str, name: str, content: bytes
) -> None:
    """Attach a file to a running trial: the bytes first, then the record that dashboard and Optuna find them by.

    Optuna's own `upload_artifact` writes the record first, so that a full disk leaves one without a file. Raises what
    the folder or the database raises; then neither is left.
    """
    artifact_id = f"{prefix}-{secrets.token_hex(8)}"
    mimetype = mimetypes.guess_type(name)[0] or "application/octet-stream"
    try:
        store.write(artifact_id, io.BytesIO(content))
        with at_once():
            record = json.dumps(asdict(ArtifactMeta(artifact_id, name, mimetype, None)))
            storage.set_trial_system_attr(trial_id, RECORD_PREFIX + artifact_id, record)
    except BaseException:
        with contextlib.suppress(ArtifactNotFound, OSError):
            store.remove(artifact_id)
        raise
