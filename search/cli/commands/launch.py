"""`affinity-search launch`: workers on this machine, watched until the study's places are used."""

from __future__ import annotations

import os
import shlex
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.options import (
    DEFAULT_STORAGE,
    DataDir,
    Files,
    IntoExisting,
    LeaseS,
    OutageS,
    Overrides,
    Rename,
    Storage,
    StudySource,
    Trials,
    asked_study,
    say,
    tried_files,
)
from affinity_search.search.worker.exits import Exit
from affinity_search.storage import DEFAULT_LEASE_S, DEFAULT_LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from affinity_search.search.devices.slots import Slot
    from affinity_search.search.launch.launcher import Launcher
    from affinity_search.search.launch.process import WorkerProcess
    from affinity_search.storage.study import StoredStudy


UnlessStopped = Annotated[
    bool,
    typer.Option(
        "--unless-stopped", help="Leave a study alone that `stop` ended; for what starts this again by itself."
    ),
]


def launch(
    study: StudySource,
    workers: Annotated[int | None, typer.Option("--workers", metavar="W", min=1, max=1024, help="CPU workers.")] = None,
    devices: Annotated[str, typer.Option("--devices", help="auto, cpu, gpu, gpu:0,2 or tpu.")] = "auto",
    per_device: Annotated[
        int, typer.Option("--workers-per-device", metavar="K", min=1, max=64, help="Workers that share each GPU.")
    ] = 1,
    tpu: Annotated[list[str] | None, typer.Option("--tpu", metavar="NAME", help="A TPU elsewhere; repeatable.")] = None,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="ray|ray://HOST:PORT", help="Workers on a Ray cluster instead of this machine."),
    ] = None,
    unless_stopped: UnlessStopped = False,
    trials: Trials = None,
    data_dir: DataDir = None,
    storage: Storage = DEFAULT_STORAGE,
    name: Rename = None,
    overrides: Overrides = None,
    into_existing: IntoExisting = False,
    files: Files = None,
    outage_s: OutageS = DEFAULT_LIMIT_S,
    lease_s: LeaseS = DEFAULT_LEASE_S,
) -> None:
    """Create or continue a study and run workers, on this machine or a cluster, until its places are used."""
    from affinity_search.search.devices.slots import plan
    from affinity_search.search.launch.launcher import Launcher
    from affinity_search.search.launch.process import WorkerProcess

    if on and (tpu or per_device != 1):
        raise typer.BadParameter("--tpu and --workers-per-device are for this machine; leave them out with --on")
    slots = [] if on else plan(devices, workers, per_device=per_device, tpus=tpu or [], say=say)
    asked = asked_study(storage, study, name, overrides, trials, data_dir, into_existing=into_existing)
    stored = _resumed(asked, unless_stopped)
    tried_files(stored, files)
    _warn_of_long_trials(stored, slots)
    new_worker: Callable[[Slot, Path], WorkerProcess] = WorkerProcess
    if on:
        slots, new_worker = _on_ray(on, stored, devices, workers)
    else:
        from affinity_search.search.worker.precision import settle_for

        stored = settle_for(stored, slots, say)
    # The rest of its arguments are where to show things, which is known when the screen is set up.
    launcher = partial(
        Launcher, stored, slots, data_dir, lease_s=lease_s, files=files, outage_s=outage_s, new_worker=new_worker
    )
    _run(stored, slots, launcher)


def _resumed(stored: StoredStudy, unless_stopped: bool) -> StoredStudy:
    """A stopped study goes on when somebody launches it."""
    from affinity_search.search.worker.stopping import stopped_text
    from affinity_search.storage.results.evaluations import opened_by
    from affinity_search.storage.stored.stopping import resume

    if stored.stopped is None:
        return stored
    if unless_stopped:
        say(stopped_text(stored))
        raise typer.Exit(Exit.STOPPED)
    say(f"study {stored.name!r} was stopped; it goes on")
    return resume(stored, opened_by())


def _warn_of_long_trials(stored: StoredStudy, slots: list[Slot]) -> None:
    from affinity_search.search.launch.workload import long_trial_warning

    if slots and slots[0].device == "cpu" and (warning := long_trial_warning(stored.spec, slots[0].threads or 1)):
        say(warning)


def _run(stored: StoredStudy, slots: list[Slot], launcher: Callable[..., Launcher]) -> None:
    from affinity_search.search.view.terminal import HINT, plural, progress_for
    from affinity_search.search.worker.stopping import StopSignals

    started = time.monotonic()
    # From here on Ctrl-C is heard, even if it comes before the first worker.
    with StopSignals() as signals, progress_for(stored, lambda: "" if signals.draining else HINT) as progress:
        launched = launcher(show=progress.show, say=progress.say)
        workers = f"{plural(len(slots), 'worker')} on {', '.join(slot.label for slot in slots)}"
        progress.say(f"{workers}; logs in {launched.logs}")
        ended = launched.run(signals)
    _summarise(stored, time.monotonic() - started, ended)
    raise typer.Exit(ended)


def _on_ray(
    address: str, stored: StoredStudy, devices: str, workers: int | None
) -> tuple[list[Slot], Callable[[Slot, Path], WorkerProcess]]:
    from affinity_search.search.launch import on_ray

    on_ray.connect(address, stored)
    return list(on_ray.plan(devices, workers)), on_ray.RayWorker


def _summarise(stored: StoredStudy, seconds: float, ended: Exit) -> None:
    from affinity_search.search.view.snapshot import take
    from affinity_search.search.view.terminal import (
        best_text,
        counts_text,
        duration_text,
        failure_lines,
        foreign_lines,
        plural,
    )
    from affinity_search.storage.results.bounds import crowded_bounds

    stored = stored.refreshed().under_its_name()
    snapshot = take(stored)
    say(f"{counts_text(snapshot)}; {plural(snapshot.attempts, 'attempt')}; this launch took {duration_text(seconds)}")
    for line in failure_lines(snapshot):
        say(line)
    say(f"best {best_text(snapshot.best, snapshot.protocol)}")
    for line in [crowded.text for crowded in crowded_bounds(stored)] + foreign_lines(snapshot):
        say(line)
    if snapshot.counts.running:
        say(f"{snapshot.counts.running} places are held by workers elsewhere; see: affinity-search status")
    study = shlex.quote(stored.name) + _storage_option(stored)
    if ended == Exit.STOPPED and snapshot.counts.free:
        say(f"stopped with {plural(snapshot.counts.free, 'place')} free; to go on: affinity-search launch {study}")
    elif snapshot.best:
        say(f"next: affinity-search evaluate {study}   (score it on the test set)")
        say(f"      affinity-search export {study} -o best.json")


def _storage_option(stored: StoredStudy) -> str:
    """What the next command needs to find the study; nothing for the default, and never a password."""
    url = stored.backend.url
    known = str(url) == DEFAULT_STORAGE or url.password or "AFFINITY_SEARCH_STORAGE" in os.environ
    return "" if known else f" --storage {shlex.quote(str(stored.backend))}"
