"""`affinity-search delete`: a study, its trials and its files, for good."""

from __future__ import annotations

from typing import Annotated

import typer

from affinity_search.search.cli.options import Files, Storage, StudyName, is_at_a_terminal, opened, say
from affinity_search.search.worker.exits import Exit
from affinity_search.storage import DEFAULT_STORAGE

EXAMPLES = (
    "affinity-search delete digits",
    "affinity-search delete digits --yes",
)


def delete(
    study: StudyName,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
) -> None:
    """Remove a study or a comparison for good: trials, final runs, history, test scores, and files on this machine."""
    from affinity_search.storage.files import default_root
    from affinity_search.storage.stored.comparisons import find_comparison
    from affinity_search.storage.stored.deletion import delete_comparison, delete_study, require_idle

    backend = opened(storage)
    comparison = find_comparison(backend, study)
    names = [part.search.name for part in comparison.parts()] if comparison else [study]
    for name in names:
        require_idle(backend, name)
    root = files or default_root(backend.url)
    what = "comparison" if comparison else "study"
    all_of_it = f"its {len(names)} searches, their final runs" if comparison else "its trials and final runs"
    if not (yes or _agreed(f"delete {what} {study!r} of {backend}, with {all_of_it} and its files in {root}?")):
        say("nothing was deleted")
        raise typer.Exit(Exit.FAILED)
    if comparison:
        delete_comparison(comparison, root)
    else:
        delete_study(backend, study, root)
    say(f"{what} {study!r} is deleted")


def _agreed(question: str) -> bool:
    from affinity_search.storage.errors import StorageError

    if not is_at_a_terminal():
        raise StorageError("there is no terminal to ask whether to delete the study; add --yes")
    return typer.confirm(question, err=True)
