"""`affinity-search predict`: classes and scores of new images, by a model that `train` wrote."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from affinity_search.search.cli.bar import bar
from affinity_search.search.cli.options import Threads, home_path, say
from affinity_search.search.devices.kinds import ONE_DEVICE

if TYPE_CHECKING:
    from affinity_search.search.experiments.models.predict import Predicted

EXAMPLES = (
    "affinity-search predict cells.keras new/ --csv found.csv",
    "affinity-search predict embeddings.keras vectors.npz",
)


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", parser=home_path, help="A file .keras that `train` wrote.")],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUTS…", parser=home_path, help="Images, folders of images; or .npz files of vectors."
        ),
    ],
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", parser=home_path, help="Write CSV to this file; - is stdout, the default."
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, max=10_000, help="Images that the network takes at once.")
    ] = 64,
    device: Annotated[str, typer.Option("--device", help=f"Device to compute on: {ONE_DEVICE}.")] = "auto",
    threads: Threads = None,
) -> None:
    """Tell the class of each image: CSV with path, class, runner_up and a column of scores for each class.

    Files that cannot be read are listed on stderr and left out.
    """
    from affinity_search.search import devices
    from affinity_search.search.devices.slots import own_device
    from affinity_search.search.experiments.models.predict import inputs_for, opened, predictions
    from affinity_search.search.training.errors import DataError
    from affinity_search.search.training.networks.model_file import about_in

    about = about_in(model)
    left_out: list[str] = []

    def leave_out(path: str, reason: str) -> None:
        left_out.append(path)
        say(f"left out: {_text(path)}: {reason}")

    found = inputs_for(about, inputs, leave_out)
    computing = devices.configure(own_device(device), threads)
    network = opened(model)
    to_stdout = csv_file is None or _is_stdout(csv_file)
    with bar(shown=not (to_stdout and sys.stdout.isatty())) as progress, _target(csv_file) as target:
        told = predictions(computing, network, found, batch, progress)
        count = _write(told, about["classes"], target)
        if not count:
            raise DataError(f"none of {len(found)} files could be read as an image; nothing was predicted")
    where = "" if to_stdout else f"; wrote {csv_file}"
    say(f"{count} predicted, {len(left_out)} left out{where}")


def _write(told: Iterator[Predicted], classes: Sequence[str], target: TextIO) -> int:
    """One line for each. Returns how many. The header comes with the first one."""
    writer = csv.writer(target, lineterminator="\n")
    count = 0
    for count, one in enumerate(told, start=1):
        if count == 1:
            writer.writerow(["path", "class", "runner_up", *classes])
        scores = (f"{score:.6g}" for score in one.scores)
        writer.writerow([_text(one.path), classes[one.label], classes[one.runner_up], *scores])
    return count


def _text(path: str) -> str:
    """A path as it is; bytes that are no text are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_stdout(file: Path) -> bool:
    return str(file) == "-"


@contextlib.contextmanager
def _target(file: Path | None) -> Iterator[TextIO]:
    """stdout, or a file that is there when it is whole."""
    from affinity_search.storage.files import replacing

    if file is None or _is_stdout(file):
        yield sys.stdout
        return
    with replacing(file) as draft, draft.open("w", encoding="utf-8", newline="") as target:
        yield target
