"""`affinity-search train`: the model of a search, trained on all images but the test's, in one file for Keras."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affinity_search.search.cli.options import (
    DataDir,
    Device,
    Storage,
    StudyName,
    Threads,
    TrialNumber,
    console,
    home_path,
    opened,
    say,
)
from affinity_search.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.experiments.models.train import Settings, Trained
    from affinity_search.search.training.results import EpochScore
    from affinity_search.storage.study import StoredStudy

EXAMPLES = (
    "affinity-search train digits -o digits.keras",
    "affinity-search train digits --trial 7 --epochs 10 -o digits.keras",
)
ENDING = ".keras"


def train(
    study: StudyName,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", parser=home_path, help="The model, NAME.keras. Default: STUDY.keras."
        ),
    ] = None,
    trial: TrialNumber = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", metavar="E", min=1, max=100_000, help="Default: the trial's best epoch."),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    data_dir: DataDir = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Train the best settings on all training and validation images, score the test set once, and save the model.

    The learning rate falls as in the search, and training ends after the trial's best epoch. Beside the model a card
    in Markdown says what it is. Both files replace older ones of the same names.
    """
    from affinity_search.search.devices.slots import own_device
    from affinity_search.search.experiments.models.train import settings
    from affinity_search.search.experiments.models.train import train as trained
    from affinity_search.search.worker.setup import WorkerOptions

    file = output or Path(f"{study}{ENDING}")
    _require_possible(file)
    stored = _search_of(storage, study)
    chosen = settings(stored, trial, epochs)
    options = WorkerOptions(own_device(device), threads, data_dir)
    most = stored.spec.training.epochs
    say(f"trial {chosen.trial}: {chosen.epochs} of {most} epochs, on all images but the test's")
    made = trained(stored, options, chosen, lambda score: say(_epoch_text(score, chosen)))
    card = _write(made, file)
    _show(stored, chosen, made.about)
    say(f"wrote {file} and {card}")
    say(f"next: affinity-search predict {shlex.quote(str(file))} {'IMAGES/' if _takes_images(made) else 'VECTORS.npz'}")


def _require_possible(file: Path) -> None:
    """Checked before the training, which may take hours."""
    from affinity_search.storage.errors import StorageError
    from affinity_search.storage.files import why_not_writable

    if file.suffix != ENDING:
        raise typer.BadParameter(f"-o {file}: Keras opens models by their ending; name a file NAME{ENDING}")
    for path in (file, _card_of(file)):
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder; name another file with -o")
    if reason := why_not_writable(file.resolve().parent):
        raise StorageError(f"{file} cannot be written: {reason}; name another file with -o")


def _card_of(file: Path) -> Path:
    return file.with_suffix(".md")


def _search_of(storage: str, name: str) -> StoredStudy:
    """The stored study. Of a comparison, a line with its searches: a model is one contestant's."""
    from affinity_search.storage.errors import StudyNotFoundError
    from affinity_search.storage.stored.comparisons import find_comparison
    from affinity_search.storage.study import load_study

    backend = opened(storage)
    comparison = find_comparison(backend, name)
    if comparison is None:
        return load_study(backend, name)
    searches = ", ".join(part.search.name for part in comparison.parts())
    raise StudyNotFoundError(f"{name!r} is a comparison; name the search of one contestant: {searches}")


def _epoch_text(score: EpochScore, chosen: Settings) -> str:
    """Without scores: the validation images are trained on."""
    return f"epoch {score.number}/{chosen.epochs}: loss {score.loss:.4f}, {score.duration_s:.1f} s"


def _write(made: Trained, file: Path) -> Path:
    from affinity_search.search.cli.commands.export import write_atomically
    from affinity_search.search.experiments.models.card import card
    from affinity_search.storage.files import replacing

    with replacing(file) as draft:
        made.model.save(draft)
    beside = _card_of(file)
    write_atomically(beside, card(made.about, str(file)))
    return beside


def _takes_images(made: Trained) -> bool:
    return bool(made.about["input"]["kind"] == "images")


def _show(stored: StoredStudy, chosen: Settings, about: dict[str, Any]) -> None:
    from affinity_search.search.experiments.models.card import warnings
    from affinity_search.search.view.tables import Column, Fitted
    from affinity_search.search.view.terminal import params_text
    from affinity_search.studies.metrics import METRICS

    test = about["test"]
    keys = list(dict.fromkeys((stored.spec.metric, "macro_f1")))
    columns = [Column("trial", right=True), Column("parameters", rank=2), Column("epochs", right=True, rank=1)]
    columns += [Column(METRICS[key].label, right=True) for key in keys] + [Column("test images", right=True, rank=1)]
    row = [str(chosen.trial), params_text(dict(chosen.params), stored.spec.head), str(chosen.epochs)]
    row += [f"{test[key]:.4f}" for key in keys] + [str(sum(test["support"]))]
    console(data=True).print(Fitted(columns, [row], f"on the test images ({stored.spec.protocol})"))
    for line in warnings(about):
        console().print(f"beware: {line}", style="yellow", markup=False)
