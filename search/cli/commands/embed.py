"""`affinity-search embed`: pictures of the features of a trial, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.options import (
    DataDir,
    Device,
    Storage,
    StudyName,
    Threads,
    TrialNumber,
    home_path,
    say,
    stored_study,
)
from affinity_search.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.experiments.embed import Embedded


EXAMPLES = (
    "affinity-search embed digits -o pictures",
    "affinity-search embed digits --trial 7 -o pictures",
)


def embed(
    study: StudyName,
    trial: TrialNumber = None,
    width: Annotated[
        int | None,
        typer.Option(
            "--width",
            metavar="H",
            min=2,
            max=8192,
            help="Put a Dense layer of H features before the head; 2 as in the "
            "article's pictures. Without it PCA projects the network's own features.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", parser=home_path, help="Folder for the pictures.")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    data_dir: DataDir = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Retrain a trial and write the scatter of its features after each epoch, with the centres: PNGs and a GIF."""
    from affinity_search.search.devices.slots import own_device
    from affinity_search.search.experiments.embed import chosen
    from affinity_search.search.experiments.embed import embed as retrain
    from affinity_search.search.training.data.splits import imbalance_of
    from affinity_search.search.view.terminal import params_text
    from affinity_search.search.worker.loop import epoch_text
    from affinity_search.search.worker.setup import WorkerOptions

    stored = stored_study(storage, study, read_only=True)
    spec = stored.spec
    options = WorkerOptions(own_device(device), threads, data_dir)
    number = chosen(stored, trial)
    folder = output or Path(f"trial-{number}-features")
    _require_writable(folder)
    found = retrain(stored, options, number, width, lambda score: say(epoch_text(score, spec)))
    minority = imbalance_of(spec.data.source, spec.data.minority).minority
    what = f"{spec.data.title}, {spec.data.imbalance_text}, {params_text(found.params, spec.head)}"
    _write(found, what, spec.data.source.classes, minority, spec.score.label, folder)
    say(f"wrote {len(found.features)} pictures and features.gif to {folder}")


def _require_writable(folder: Path) -> None:
    """Checked before the training, which takes minutes."""
    from affinity_search.storage.errors import StorageError
    from affinity_search.storage.files import why_not_writable

    if reason := why_not_writable(folder):
        raise StorageError(f"{folder} cannot be written: {reason}; name another folder with -o")


def _write(
    found: Embedded, what: str, names: Sequence[str], minority: Sequence[bool], label: str, folder: Path
) -> None:
    from affinity_search.search.view.figures.features import animate, draw
    from affinity_search.storage.errors import StorageError

    frames = draw(found.features, what, found.scores, names, minority, label)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(frames, start=1):
            (folder / f"epoch-{number:03}.png").write_bytes(frame)
        animate(frames, folder / "features.gif")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}; name another folder with -o") from error
