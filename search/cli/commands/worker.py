"""`affinity-search worker`: one worker in the foreground."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.options import (
    DataDir,
    Device,
    Files,
    IntoExisting,
    LeaseS,
    OutageS,
    Overrides,
    Rename,
    Storage,
    StudySource,
    Threads,
    Trials,
    asked_study,
    say,
    stored_comparison,
)
from affinity_search.search.worker.exits import Exit
from affinity_search.storage import DEFAULT_LEASE_S, DEFAULT_LIMIT_S, DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.training.errors import OutOfMemoryError
    from affinity_search.storage.stored.agenda import Agenda

# In the environment: how many processes ran out of memory one after the other before this one.
EXAMPLES = (
    "affinity-search worker digits --device gpu:0",
    "affinity-search worker digits --storage postgresql://me@server/studies --files /shared/files",
)

FAILED_BEFORE = "AFFINITY_SEARCH_MEMORY_FAILURES"


def worker(
    study: StudySource,
    device: Device = "auto",
    threads: Threads = None,
    trials: Trials = None,
    data_dir: DataDir = None,
    storage: Storage = DEFAULT_STORAGE,
    name: Rename = None,
    overrides: Overrides = None,
    into_existing: IntoExisting = False,
    files: Files = None,
    outage_s: OutageS = DEFAULT_LIMIT_S,
    lease_s: LeaseS = DEFAULT_LEASE_S,
    tpu: Annotated[str | None, typer.Option("--tpu", metavar="NAME", help="Name of a TPU on another machine.")] = None,
    memory_mib: Annotated[int | None, typer.Option("--memory-mib", min=1, max=2**31 - 1, hidden=True)] = None,
    worker_id: Annotated[str | None, typer.Option("--worker-id", hidden=True)] = None,
) -> None:
    """Run one worker here until no place is free. Any machine that reaches the storage can run one.

    Ctrl-C once: finish the running trial, then stop. Twice: give the trial back and stop now.
    """
    from affinity_search.search.devices.slots import own_device
    from affinity_search.search.training.errors import OutOfMemoryError
    from affinity_search.search.worker.setup import WorkerOptions, announce, tried_files, work
    from affinity_search.search.worker.stopping import StopSignals
    from affinity_search.storage.stored.agenda import OneStudy

    device = own_device(device, [tpu] if tpu else [])
    agenda = stored_comparison(storage, study) or OneStudy(
        asked_study(storage, study, name, overrides, trials, data_dir, into_existing=into_existing, examine=False)
    )
    if worker_id is None:  # its launcher has checked them
        tried_files(agenda.studies[0], files, say)
    signals = StopSignals(announce)
    options = WorkerOptions(device, threads, data_dir, worker_id, lease_s, files, outage_s, memory_mib, signals)
    try:
        work(agenda, options)
    except OutOfMemoryError as error:
        if worker_id is None:  # without a launcher nobody else would start another process
            _start_anew(error)
        raise
    if worker_id is None:  # its launcher tells it
        _tell_closed(agenda)
    if signals.draining and _has_free_places(agenda):
        raise typer.Exit(Exit.STOPPED)


def _tell_closed(agenda: Agenda) -> None:
    from affinity_search.storage.places.closing import closing_of

    for study in agenda.refreshed().studies:
        if closing := closing_of(study):
            say(closing.text(study.name))


def _has_free_places(agenda: Agenda) -> bool:
    """Works without the storage too: then this worker's place comes back when its lease ends."""
    from affinity_search.storage.database.patience import is_transient

    try:
        return agenda.counts().free > 0
    except Exception as error:
        if not is_transient(error):
            raise
        return True


def _start_anew(error: OutOfMemoryError) -> None:
    """Become a new process, which has all of the GPU's memory. Returns if that did not help the last time."""
    from affinity_search.search.launch.children import COMMAND, surroundings
    from affinity_search.search.launch.launcher import MEMORY_FAILURES
    from affinity_search.search.worker.loop import say as log

    failures = 1 + (0 if error.trials_ended else int(os.environ.get(FAILED_BEFORE, "0")))
    if failures >= MEMORY_FAILURES:
        return
    log(f"{error}; once more in a fresh process")
    environment = surroundings() | {FAILED_BEFORE: str(failures)}
    os.execve(sys.executable, [sys.executable, *COMMAND, *sys.argv[1:]], environment)
