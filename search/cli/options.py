"""Options that several commands share, and how they open the storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from storage.backend import Backend
    from storage.study import StoredStudy

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
        help="Folder with cifar-10-batches-py or mnist.npz; without it Keras downloads them.",
        exists=True,
        file_okay=False,
    ),
]
Files = Annotated[
    Path | None,
    typer.Option(
        "--files",
        metavar="DIR",
        envvar="AFFINITY_SEARCH_FILES",
        help="Folder for checkpoints; let machines share it. [default: beside the SQLite file, else user data]",
        file_okay=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the study file, e.g. training.epochs=2."),
]
Rename = Annotated[str | None, typer.Option("--name", metavar="S", help="Store the study under this name.")]
Trials = Annotated[int | None, typer.Option("--trials", metavar="N", min=1, help="Total number of places.")]
OutageS = Annotated[
    float,
    typer.Option("--outage-s", metavar="S", min=0.0, help="Seconds that workers wait for a storage that is away."),
]
LeaseS = Annotated[
    float,
    typer.Option("--lease-s", min=1.0, hidden=True, help="Seconds until a silent worker's place is taken from it."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]

DEFAULT_STORAGE = "sqlite:///affinity-search.db"


def console() -> Console:
    """For human text: stderr."""
    from rich.console import Console

    # Without emoji, or a study named `a:smile:` would be shown as another.
    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=not _is_terminal())


def _is_terminal() -> bool:
    import sys

    return sys.stderr.isatty()


def say(message: str) -> None:
    """A line for the person."""
    typer.echo(message, err=True)


def asked_study(
    url: str, source: str, name: str | None, overrides: list[str] | None, trials: int | None
) -> StoredStudy:
    """Create or continue the study that the options describe, and tell the person what changed."""
    from search.definition import Asked, open_storage_for, open_study

    asked = Asked.of(source, name, overrides, trials)
    stored, notes = open_study(open_storage_for(url, asked), asked)
    for note in notes:
        say(note)
    return stored


def opened(url: str, *, read_only: bool = False) -> Backend:
    """Open the storage of a command that creates no study: it must be there."""
    from storage.backend import open_backend

    return open_backend(url, create=False, read_only=read_only)
