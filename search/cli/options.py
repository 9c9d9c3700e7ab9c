"""Options that several commands share, and how they open the storage."""

from __future__ import annotations

import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.devices.kinds import ONE_DEVICE
from affinity_search.studies.data import file_names

if TYPE_CHECKING:
    from rich.console import Console

    from affinity_search.storage.database.backend import Backend
    from affinity_search.storage.errors import SmallerBudgetError
    from affinity_search.storage.stored.comparisons import StoredComparison
    from affinity_search.storage.study import StoredStudy


def home_path(text: str) -> Path:
    """A path as people write it. A shell keeps the ~ in `--files=~/x`; a .env file keeps quotes and a line break."""
    from affinity_search.storage.errors import StorageError
    from affinity_search.storage.urls import cleaned, expanded

    try:
        return Path(expanded(cleaned(text, "the path")))
    except StorageError as error:
        raise typer.BadParameter(str(error)) from None


def finite(value: float) -> float:
    """Refuse NaN: it is neither below nor above a bound, so `min` and `max` let it pass."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} given; allowed: a finite number of seconds")
    return value


def data_folder(text: str) -> Path:
    """The path of a folder that exists."""
    path = home_path(text)
    if not path.is_dir():
        raise typer.BadParameter(f"{text!r} is no folder; name the folder that holds the data set's files")
    return path


Storage = Annotated[
    str,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar="AFFINITY_SEARCH_STORAGE",
        help="sqlite:///FILE.db or postgresql://USER@HOST/DATABASE; keep passwords in the environment variable.",
    ),
]
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="Name of a stored study.")]
StudySource = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study file (.toml), a bundled study, or a stored study's name.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help=f"Folder with {file_names()}. Default: the study's folder, else Keras downloads them.",
        parser=data_folder,
    ),
]
Files = Annotated[
    Path | None,
    typer.Option(
        "--files",
        metavar="DIR",
        envvar="AFFINITY_SEARCH_FILES",
        help="Folder for checkpoints, shared by all machines. Default: beside the SQLite file, else your data folder.",
        parser=home_path,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the study file, e.g. training.epochs=2."),
]
Rename = Annotated[str | None, typer.Option("--name", metavar="S", help="Store the study under this name.")]
Trials = Annotated[
    int | None,
    typer.Option(
        "--trials",
        metavar="N",
        min=1,
        max=100_000,
        help="Total number of places. A place is the right to train one trial.",
    ),
]
OutageS = Annotated[
    float,
    typer.Option(
        "--outage-s",
        metavar="S",
        min=0.0,
        max=30 * 86_400.0,
        callback=finite,
        help="Seconds that workers wait for a storage that does not answer.",
    ),
]
LeaseS = Annotated[
    float,
    typer.Option(
        "--lease-s",
        min=1.0,
        max=86_400.0,
        callback=finite,
        hidden=True,
        help="Seconds until a silent worker's place is taken from it.",
    ),
]
IntoExisting = Annotated[
    bool,
    typer.Option("--into-existing", help="Create the study in a database that holds another program's tables."),
]
PointsFrom = Annotated[
    str | None,
    typer.Option("--from", metavar="STUDY", help="Try the best settings of a stored study first, in a new study."),
]
PointsTop = Annotated[
    int, typer.Option("--top", metavar="K", min=1, max=1000, help="Number of its best trials, with --from.")
]
Device = Annotated[str, typer.Option("--device", help=f"Device to train on: {ONE_DEVICE}.")]
MOST_THREADS = 1024
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, max=MOST_THREADS, help="Number of CPU threads. Default: all.")
]
TrialNumber = Annotated[
    int | None,
    typer.Option("--trial", metavar="N", min=0, max=2**31 - 1, help="Number of the trial. Default: the best."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]

WIDE = 1000


def console(*, data: bool = False) -> Console:
    """A console on stderr for messages; with `data`, on stdout for the answer itself.

    Outside a terminal a table is as wide as it needs, unless COLUMNS says otherwise.
    """
    from rich.console import Console

    stream = sys.stdout if data else sys.stderr
    width = None if stream.isatty() or "COLUMNS" in os.environ else WIDE
    # No emoji codes: they would change the name of a study such as `a:smile:`.
    return Console(stderr=not data, highlight=False, emoji=False, soft_wrap=not stream.isatty(), width=width)


def say(message: str) -> None:
    """A line for the person."""
    typer.echo(message, err=True)


def asked_study(
    url: str,
    source: str,
    name: str | None,
    overrides: list[str] | None,
    trials: int | None,
    data_dir: Path | None,
    *,
    into_existing: bool = False,
    examine: bool = True,
) -> StoredStudy:
    """Create or continue the study that the options describe, and tell the person what changed."""
    from affinity_search.search import api
    from affinity_search.storage.errors import SmallerBudgetError

    create = partial(api.create, source, url, name=name, overrides=overrides, data_dir=data_dir, say=say)
    try:
        return create(trials=trials, into_existing=into_existing, examine=examine).stored
    except SmallerBudgetError as error:
        if trials is None or not _agrees_to_all(error):
            raise
    return create(into_existing=into_existing, examine=examine).stored


def with_points(overrides: list[str] | None, url: str, source: str | None, top: int) -> list[str] | None:
    """The overrides, with the best settings of a stored study if there is a `source`."""
    from affinity_search.search import api

    return overrides if source is None else [*(overrides or []), api.points_of(source, url, top=top)]


def is_at_a_terminal() -> bool:
    """Whether a person can answer a question here."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _agrees_to_all(error: SmallerBudgetError) -> bool:
    """Ask whether to train the free places anyway; false without a terminal."""
    if not is_at_a_terminal():
        return False
    return typer.confirm(f"{error.has}; places are never taken away. Train the {error.free} free ones?", err=True)


def stored_study(url: str, name: str, *, read_only: bool = False) -> StoredStudy:
    """The stored study of that name; the storage must exist."""
    from affinity_search.search import api

    return api.open(name, url, read_only=read_only).stored


def opened(url: str, *, read_only: bool = False) -> Backend:
    """Open the storage for a command that creates no study; it must exist."""
    from affinity_search.storage.database.backend import open_backend

    return open_backend(url, create=False, read_only=read_only)


def stored_comparison(url: str, name: str) -> StoredComparison | None:
    """The stored comparison of that name; None if there is none, or no database yet."""
    from affinity_search.storage.errors import NoDatabaseError, OutdatedError
    from affinity_search.storage.stored.comparisons import find_comparison

    try:
        return find_comparison(opened(url), name)
    except (NoDatabaseError, OutdatedError):
        return None
