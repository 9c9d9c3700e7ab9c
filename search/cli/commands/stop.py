"""`affinity-search stop`: end a search from any machine that reaches its storage."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from affinity_search.search.cli.options import Storage, StudyName, say, stored_comparison, stored_study
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
    from affinity_search.storage.results.final_runs import final_study
    from affinity_search.storage.stored.stopping import resume
    from affinity_search.storage.stored.stopping import stop as stop_study

    if now and undo:
        raise typer.BadParameter("--now and --undo contradict each other")
    comparison = stored_comparison(storage, study)
    if comparison:
        studies = comparison.studies
    else:
        search = stored_study(storage, study)
        final = final_study(search)
        studies = [search, *([final] if final else [])]
    for each in studies:
        resume(each, user_at_host()) if undo else stop_study(each, Stop.NOW if now else Stop.DRAIN, user_at_host())
    what = "comparison" if comparison else "study"
    if undo:
        say(f"workers may begin trials of {study!r} again")
        return
    running = plural(sum(Places.of(each).counts().running for each in studies), "running trial")
    then = "are given back within about ten seconds" if now else "will finish"
    say(f"{what} {study!r} is stopped: no new trials; {running} {then}")
    say(f"to go on: affinity-search {'compare' if comparison else 'launch'} {shlex.quote(study)}")
