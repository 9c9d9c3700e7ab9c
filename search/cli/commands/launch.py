"""`affinity-search launch`: workers on this machine, watched until the study's places are used."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.launching import (
    Devices,
    Notify,
    On,
    PerDevice,
    Tpus,
    TpuStrategy,
    Track,
    Workers,
    refuse_both,
    run_shown,
    storage_option,
)
from affinity_search.search.cli.options import (
    DataDir,
    Files,
    IntoExisting,
    LeaseS,
    OutageS,
    Overrides,
    PointsFrom,
    PointsTop,
    Rename,
    Storage,
    StudySource,
    Trials,
    asked_study,
    say,
    with_points,
)
from affinity_search.search.worker.exits import Exit
from affinity_search.storage import DEFAULT_LEASE_S, DEFAULT_LIMIT_S, DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.storage.study import StoredStudy


EXAMPLES = (
    "affinity-search launch digits --workers 2",
    "affinity-search launch my-study.toml --devices gpu --storage postgresql://me@server/studies",
)

UnlessStopped = Annotated[
    bool,
    typer.Option(
        "--unless-stopped",
        help="Do nothing if `stop` ended the study. For programs that start this command by themselves.",
    ),
]


def launch(
    study: StudySource,
    workers: Workers = None,
    devices: Devices = "auto",
    per_device: PerDevice = 1,
    tpu: Tpus = None,
    tpu_strategy: TpuStrategy = False,
    on: On = None,
    track: Track = None,
    notify: Notify = None,
    unless_stopped: UnlessStopped = False,
    trials: Trials = None,
    data_dir: DataDir = None,
    storage: Storage = DEFAULT_STORAGE,
    name: Rename = None,
    overrides: Overrides = None,
    into_existing: IntoExisting = False,
    points_from: PointsFrom = None,
    top: PointsTop = 1,
    files: Files = None,
    outage_s: OutageS = DEFAULT_LIMIT_S,
    lease_s: LeaseS = DEFAULT_LEASE_S,
) -> None:
    """Create or continue a study and run workers, on this machine or a cluster, until its places are used."""
    from affinity_search.search.api.launching import Launching
    from affinity_search.search.launch.ahead import Ahead

    refuse_both(on, tpu, per_device, tpu_strategy=tpu_strategy)
    where = workers, devices, per_device, tuple(tpu or ()), on
    how = data_dir, files, lease_s, outage_s, tpu_strategy
    asked = Launching(*where, *how)
    slots = asked.slots(say)
    with Ahead.begun(slots) as ahead:
        # Only now what takes a second to import.
        from affinity_search.search.api.preparing import prepare
        from affinity_search.search.launch.tracking.addresses import Sending
        from affinity_search.storage.stored.agenda import OneStudy

        asked = replace(asked, sending=Sending.asked(track, notify))
        overrides = with_points(overrides, storage, points_from, top)
        stored = asked_study(storage, study, name, overrides, trials, data_dir, into_existing=into_existing)
        if unless_stopped:
            _leave_alone_if_stopped(stored)
        prepared = prepare(OneStudy(stored), asked, say, slots, ahead)
        started = time.monotonic()
        ended = run_shown(prepared)
    _summarise(stored, time.monotonic() - started, ended)
    raise typer.Exit(ended)


def _leave_alone_if_stopped(stored: StoredStudy) -> None:
    from affinity_search.search.worker.stopping import stopped_text

    if stored.stopped is not None:
        say(stopped_text(stored))
        raise typer.Exit(Exit.STOPPED)


def _summarise(stored: StoredStudy, seconds: float, ended: Exit) -> None:
    from affinity_search.search.view.snapshot import lines_on, take
    from affinity_search.search.view.terminal import (
        counts_text,
        duration_text,
        failure_lines,
        foreign_lines,
        outcome_text,
        plural,
    )
    from affinity_search.storage.results.bounds import crowded_bounds

    stored = stored.refreshed().under_its_name()
    snapshot = take(stored)
    say(f"{counts_text(snapshot)}; {plural(snapshot.attempts, 'attempt')}; this launch took {duration_text(seconds)}")
    for line in failure_lines(snapshot):
        say(line)
    say(outcome_text(snapshot))
    bounds = [crowded.text for crowded in crowded_bounds(stored)]
    for line in [*lines_on(stored), *bounds, *foreign_lines(snapshot)]:
        say(line)
    if snapshot.counts.running:
        say(f"{snapshot.counts.running} places are held by workers elsewhere; see: affinity-search status")
    study = shlex.quote(stored.name) + storage_option(stored.backend)
    if ended == Exit.STOPPED and snapshot.counts.free:
        say(f"stopped with {plural(snapshot.counts.free, 'place')} free; to go on: affinity-search launch {study}")
    elif snapshot.best:
        say(f"next: affinity-search evaluate {study}   (score it on the test set)")
        say(f"      affinity-search export {study} -o best.json")
