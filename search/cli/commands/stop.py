"""`affinity-search stop`: end a search from any machine that reaches its storage."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from affinity_search.search.cli.options import Storage, StudyName, say, stored_study
from affinity_search.storage import DEFAULT_STORAGE

EXAMPLES = (
    "affinity-search stop digits",
    "affinity-search stop digits --now",
)


def stop(
    study: StudyName,
    now: Annotated[bool, typer.Option("--now", help="Also stop the running trials; they can go on later.")] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take a stop back: workers may begin trials again. `launch` does so too.")
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Stop a search: no worker, on any machine, begins another trial. `launch` goes on later."""
    from affinity_search.search.view.terminal import plural
    from affinity_search.storage.database.runtime import user_at_host
    from affinity_search.storage.database.tables import Stop
    from affinity_search.storage.places.claims import Places
    from affinity_search.storage.stored.stopping import resume
    from affinity_search.storage.stored.stopping import stop as stop_study

    if now and undo:
        raise typer.BadParameter("--now and --undo contradict each other")
    stored = stored_study(storage, study)
    if undo:
        resume(stored, user_at_host())
        say(f"workers may begin trials of {study!r} again")
        return
    stop_study(stored, Stop.NOW if now else Stop.DRAIN, user_at_host())
    running = plural(Places.of(stored).counts().running, "running trial")
    then = "are given back within about ten seconds" if now else "will finish"
    say(f"study {study!r} is stopped: no new trials; {running} {then}")
    say(f"to go on: affinity-search launch {shlex.quote(study)}")
