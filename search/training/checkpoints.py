"""Where a run stood at the end of an epoch, kept in a file: written atomically, read with suspicion."""

import json
import os
import secrets
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affinity_search.search.training.errors import CheckpointError
from affinity_search.search.training.results import EpochScore

FORMAT = 2


@dataclass(frozen=True)
class TrainingState:
    """A run after its last finished epoch: the scores so far, and every variable but the image table.

    `variables` maps each variable's path (the optimiser's and the random state included) to its value, an array of
    NumPy's or of the backend's. `best` are those of the best epoch so far, where somebody will want them.
    """

    epochs: tuple[EpochScore, ...]
    variables: Mapping[str, Any]
    best: Mapping[str, Any] | None = None


def save(path: Path, state: TrainingState, identity: Mapping[str, Any]) -> None:
    """Replace the file at `path`, whole or not at all, making its folder if need be.

    `identity` (JSON-ready) says whose state it is; `load` must be given the same.

    Raises:
        CheckpointError: it cannot be written (the disk is full, the folder is closed); what was there before stays.
    """
    header = {"format": FORMAT, "identity": dict(identity), "epochs": [epoch.to_dict() for epoch in state.epochs]}
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(unfinished, json.dumps(header), state)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be written ({error.strerror or error}); training goes on, and starts from "
            "an earlier epoch if this worker dies: make room, or name another folder with --files"
        ) from error


def _write(path: Path, header: str, state: TrainingState) -> None:
    arrays: dict[str, Any] = {"header": np.array(header), "names": np.array(list(state.variables))}
    arrays |= {f"{number}": np.asarray(value) for number, value in enumerate(state.variables.values())}
    if state.best is not None:
        arrays["best"] = np.array(list(state.best))
        arrays |= {f"best{number}": np.asarray(value) for number, value in enumerate(state.best.values())}
    with path.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the new name with the old disk's bytes


def load(path: Path, identity: Mapping[str, Any]) -> TrainingState | None:
    """What `save` wrote for this identity; None if there is no file.

    Raises:
        CheckpointError: the file is damaged (its checksums tell), of another program version, or another's.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            header = json.loads(str(found["header"]))
            if header["format"] != FORMAT:
                raise CheckpointError(f"it has format {header['format']} and this program reads {FORMAT}")
            if header["identity"] != json.loads(json.dumps(dict(identity))):
                raise CheckpointError("it is of other parameters or another definition")
            epochs = tuple(EpochScore.from_dict(plain) for plain in header["epochs"])
            best = _read(found, "best", "best") if "best" in found else None
            return TrainingState(epochs, _read(found, "names", ""), best)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"it cannot be read ({_first_line(error)})") from error


def _read(found: Mapping[str, Any], names: str, prefix: str) -> dict[str, Any]:
    return {str(name): found[f"{prefix}{number}"] for number, name in enumerate(found[names])}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
