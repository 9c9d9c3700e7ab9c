"""`affinity-search rename`: another name for a stored study."""

from __future__ import annotations

from typing import Annotated

import typer

from affinity_search.search.cli.options import Storage, StudyName, opened, say
from affinity_search.storage import DEFAULT_STORAGE

EXAMPLES = (
    "affinity-search rename digits digits-narrow",
    "affinity-search rename digits old --storage sqlite:///studies.db",
)


def rename(
    study: StudyName,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Give a stored study another name. Workers and launchers that run go on with it."""
    from affinity_search.storage.stored.renaming import rename as rename_study

    rename_study(opened(storage), study, new)
    say(f"study {study!r} is called {new!r} now")
