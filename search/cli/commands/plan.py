"""`affinity-search plan`: what a launch would train, how long it would take, and what it needs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affinity_search.search.cli.launching import Devices, PerDevice, Workers
from affinity_search.search.cli.options import (
    AsJson,
    DataDir,
    Overrides,
    Storage,
    StudySource,
    Trials,
    console,
    say,
)
from affinity_search.search.worker.exits import Exit
from affinity_search.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.devices.slots import Slot
    from affinity_search.search.experiments.cost.plan import Plan
    from affinity_search.search.view.tables import Fitted

EXAMPLES = (
    "affinity-search plan digits --workers 2",
    "affinity-search plan my-study.toml --devices gpu --workers-per-device 3 --price-per-hour 2.5",
)

LONG_S = 20 * 3600.0  # from here on the day is told too
Price = Annotated[
    float | None,
    typer.Option("--price-per-hour", metavar="P", min=0.0, max=1e6, help="What an hour of this machine costs."),
]


def plan(
    study: StudySource,
    workers: Workers = None,
    devices: Devices = "auto",
    per_device: PerDevice = 1,
    trials: Trials = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure here, although the study has finished trials that tell.")
    ] = False,
    price_per_hour: Price = None,
    as_json: AsJson = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Tell what a launch would take: trainings, epochs, time, memory, cost. Nothing is stored.

    A few seconds are trained here with as many workers at once as the launch would have. Of a stored study, its own
    trials tell the speed. A comparison is planned like `compare --dry-run`.
    """
    from affinity_search.search.api.comparing import is_comparison_source
    from affinity_search.search.api.opening import Asked, planned_study
    from affinity_search.search.devices.slots import plan as slots_for
    from affinity_search.search.experiments.cost.plan import plan_study
    from affinity_search.studies import bundled

    slots = slots_for(devices, workers, per_device=per_device, say=say)
    # `launch` starts the study of a name that both have; `compare --dry-run` plans the comparison.
    if study not in bundled.names() and is_comparison_source(study, storage):
        told = {"trials": trials}
        tell(lambda: compared(study, storage, told, overrides or [], slots, data_dir), price_per_hour, as_json)
        return
    spec, stored = planned_study(storage, Asked.of(study, None, overrides, trials, data_dir))
    tell(lambda: plan_study(spec, stored, slots, data_dir, say, measure=measure), price_per_hour, as_json)


def compared(
    source: str,
    url: str,
    asked: dict[str, Any],
    overrides: list[str],
    slots: Sequence[Slot],
    data_dir: Path | None,
) -> Plan:
    """The plan of a comparison; `asked` is as for `planned`."""
    from affinity_search.search.api.comparing import comparison_with_found, planned
    from affinity_search.search.experiments.cost.plan import plan_comparison

    spec = comparison_with_found(planned(source, url, asked, overrides), data_dir)
    return plan_comparison(spec, slots, data_dir, say)


def tell(make: Callable[[], Plan], price_per_hour: float | None, as_json: bool) -> None:
    """Make a plan and show it."""
    found = replace(make(), price_per_hour=price_per_hour)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        _show(found)
    if found.problem:
        raise typer.Exit(Exit.UNFIT_MACHINE)


def _show(found: Plan) -> None:
    out = console(data=True)
    if not found.trainings:
        out.print("nothing is left to train; --trials N adds places")
        return
    if len(found.works) > 1:
        out.print(_table(found))
    for key, text in _lines(found):
        out.print(f"{key:<10} {text}", markup=False, soft_wrap=True)


def _lines(found: Plan) -> Iterator[tuple[str, str]]:
    """What every plan tells: a word, and what is known of it."""
    from affinity_search.search.view.terminal import plural

    most, expected = found.most_epochs, found.expected_epochs
    less = "" if expected == most else f", about {expected} if the pruner ends trials as expected"
    yield "work", f"{plural(found.trainings, 'training')}, {most} epochs at most{less}"
    yield "workers", f"{found.workers} on {found.device}"
    if found.problem:
        yield "problem", found.problem
    if len(found.works) == 1 and (speed := found.works[0][1]):
        yield "an epoch", f"{speed.epoch_s:.2g} s ({found.source})"
    else:
        yield "speed", found.source
    yield from _time(found)
    yield from _needs(found)


def _time(found: Plan) -> Iterator[tuple[str, str]]:
    from affinity_search.search.view.terminal import rough_text

    expected_s, most_s = found.seconds(pruned=True), found.seconds(pruned=False)
    if expected_s is None or most_s is None:
        return
    longer = "" if found.expected_epochs == found.most_epochs else f"; without the pruner {rough_text(most_s)}"
    end = time.localtime(time.time() + expected_s)
    day = "%H:%M" if expected_s < LONG_S else "%A %d %B, %H:%M"
    yield "time", f"about {rough_text(expected_s)}{longer}; started now, it ends at {time.strftime(day, end)}"


def _needs(found: Plan) -> Iterator[tuple[str, str]]:
    """Memory, power and money, as far as they are known."""
    if found.memory_mib is not None and found.free_mib is not None and found.room is not None:
        needed, free = found.memory_mib / 1024, found.free_mib / 1024
        fits = "too little for so many" if found.room < found.workers else f"room for about {found.room}"
        yield "memory", f"{needed:.1f} GiB for each worker at most; {free:.1f} GiB are free: {fits}"
    hours = (found.seconds(pruned=True) or 0.0) / 3600
    if found.watts is not None:
        yield "power", f"{found.watts:.0f} W for each GPU, {found.watts * hours / 1000:.2g} kWh for each in all"
    if found.price is not None:
        yield "cost", f"about {found.price:.2g}, at {found.price_per_hour:g} an hour"


def _table(found: Plan) -> Fitted:
    """One line for each search and each study of final runs."""
    from affinity_search.search.view.tables import Column, Fitted

    columns = [Column("study"), Column("trainings", right=True), Column("epochs at most", right=True)]
    columns += [Column("expected", right=True, rank=2), Column("an epoch", right=True, rank=1)]
    rows = []
    for work, speed in found.works:
        took = "?" if speed is None else f"{speed.epoch_s:.2g} s"
        rows.append([work.study, str(work.trainings), str(work.most_epochs), str(work.expected_epochs), took])
    return Fitted(columns, rows, found.name)
