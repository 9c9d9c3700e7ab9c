"""`affinity-search compare`: does a loss help, with which settings, and is that luck?"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
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
    AsJson,
    DataDir,
    Files,
    LeaseS,
    OutageS,
    Overrides,
    Rename,
    Storage,
    console,
    home_path,
    say,
)
from affinity_search.search.worker.exits import Exit
from affinity_search.storage import DEFAULT_LEASE_S, DEFAULT_LIMIT_S, DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.api.launching import Launching
    from affinity_search.search.devices.slots import Slot
    from affinity_search.search.experiments.document import ComparisonModel
    from affinity_search.search.launch.ahead import Ahead
    from affinity_search.storage.stored.comparisons import StoredComparison

EXAMPLES = (
    "affinity-search compare digits --heads affinity,softmax,logit_adjusted --trials 8 --draws 5 --workers 2",
    "affinity-search compare my-comparison.toml --devices gpu",
)


Source = Annotated[
    str,
    typer.Argument(
        metavar="COMPARISON",
        help="A comparison's file (.toml), its stored name, a bundled comparison, or a study with --heads.",
    ),
]
Heads = Annotated[
    str | None, typer.Option("--heads", metavar="H,H,…", help="Compare these heads, each with its own search.")
]
Places = Annotated[int | None, typer.Option("--trials", metavar="N", min=1, max=100_000, help="Places of each search.")]
Draws = Annotated[
    int | None, typer.Option("--draws", metavar="D", min=1, max=10_000, help="Final runs of each contestant.")
]
Metric = Annotated[str | None, typer.Option("--metric", help="What decides, such as balanced_accuracy.")]
Baseline = Annotated[
    str | None, typer.Option("--baseline", metavar="NAME", help="The contestant that the others are compared to.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only tell how many runs and hours it would be; store nothing.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", parser=home_path, help="Write the report to FILE.html too."),
]


def compare(
    source: Source,
    heads: Heads = None,
    trials: Places = None,
    draws: Draws = None,
    metric: Metric = None,
    baseline: Baseline = None,
    dry_run: DryRun = False,
    output: Output = None,
    workers: Workers = None,
    devices: Devices = "auto",
    per_device: PerDevice = 1,
    tpu: Tpus = None,
    tpu_strategy: TpuStrategy = False,
    on: On = None,
    track: Track = None,
    notify: Notify = None,
    data_dir: DataDir = None,
    name: Rename = None,
    overrides: Overrides = None,
    files: Files = None,
    as_json: AsJson = False,
    storage: Storage = DEFAULT_STORAGE,
    outage_s: OutageS = DEFAULT_LIMIT_S,
    lease_s: LeaseS = DEFAULT_LEASE_S,
) -> None:
    """Search every contestant's settings, judge them on fresh draws, and say which is better, and whether that is luck.

    The same command goes on where it was interrupted, also from several machines at once.
    """
    from affinity_search.search.api.launching import Launching
    from affinity_search.search.launch.ahead import Ahead

    refuse_both(on, tpu, per_device, tpu_strategy=tpu_strategy)
    given = {"name": name, "trials": trials, "draws": draws, "metric": metric, "baseline": baseline}
    asked = given | {"heads": heads.split(",") if heads is not None else None}
    where = workers, devices, per_device, tuple(tpu or ()), on
    how = data_dir, files, lease_s, outage_s, tpu_strategy
    launching = Launching(*where, *how)
    slots = launching.slots(say)
    with Ahead.begun([] if dry_run else slots) as ahead:
        # Only now what takes a second to import.
        from affinity_search.search.api.comparing import open_comparison
        from affinity_search.search.cli.commands.plan import compared, tell
        from affinity_search.search.launch.tracking.addresses import Sending

        launching = replace(launching, sending=Sending.asked(track, notify))
        if dry_run:
            tell(lambda: compared(source, storage, asked, overrides or [], slots, data_dir), None, as_json)
            return
        comparison = open_comparison(source, storage, asked, overrides or [], data_dir, say)
        raise typer.Exit(_run(comparison, launching, slots, ahead, output, as_json=as_json))


def _run(
    comparison: StoredComparison,
    launching: Launching,
    slots: Sequence[Slot],
    ahead: Ahead | None,
    output: Path | None,
    *,
    as_json: bool,
) -> Exit:
    """Train what is missing, and tell what was found."""
    from affinity_search.search.api.preparing import prepare
    from affinity_search.search.experiments.compare import results
    from affinity_search.storage.places.recovery import complete_halves

    ended = Exit.DONE
    started = time.monotonic()
    comparison.advance()
    if comparison.is_unfinished:
        ended = run_shown(prepare(comparison, launching, say, slots, ahead))
    else:
        for study in comparison.studies:  # the last worker may have died right before its trial's end
            complete_halves(study)
    found = results(comparison.refreshed())
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        show(found)
    if output is not None:
        from affinity_search.search.cli.commands.export import write_atomically
        from affinity_search.search.experiments.report.page import page

        write_atomically(output, page(found))
        say(f"wrote {output}")
    _tell_next(comparison, found, time.monotonic() - started, ended)
    return ended


def _tell_next(comparison: StoredComparison, found: ComparisonModel, seconds: float, ended: Exit) -> None:
    from affinity_search.search.view.terminal import duration_text

    again = shlex.quote(comparison.name) + storage_option(comparison.backend)
    if not found.finished:
        say(f"unfinished after {duration_text(seconds)}; to go on: affinity-search compare {again}")
    say(f"the whole report: affinity-search report {again} -o report.html")


def show(found: ComparisonModel) -> None:
    """The verdict first, then the table."""
    from affinity_search.search.view.tables import Column, Fitted

    out = console(data=True)
    for level in found.levels:
        if level.text:
            out.print(f"\n{level.text}", markup=False, style="bold")
        columns = [Column("contestant"), Column(found.label, right=True), Column("95 % interval", rank=2)]
        columns += [Column(f"− {found.baseline}", right=True, rank=1), Column("95 % interval", rank=3)]
        columns += [Column("verdict"), Column("settings", rank=5), Column("epochs", right=True, rank=6)]
        columns += [Column("seconds", right=True, rank=7)]
        out.print(Fitted(columns, [_row(one) for one in level.contestants]))
        out.print(level.verdict, markup=False, soft_wrap=True)


def _row(one: object) -> list[str]:
    from affinity_search.search.experiments.document import ContestantModel

    assert isinstance(one, ContestantModel)
    over, verdict = one.interval, one.verdict
    difference = verdict.difference if verdict else None
    settings = ", ".join(f"{one.symbols[key]} {value:.3g}" for key, value in (one.params or {}).items())
    known = over is not None and over.mean is not None
    return [
        one.contestant,
        f"{100 * over.mean:.1f}" if over is not None and over.mean is not None else "-",
        _ends(over.low, over.high) if known and over else "",
        f"{100 * difference.mean:+.1f}".replace("-", "−") if difference and difference.mean is not None else "",
        _ends(difference.low, difference.high, signed=True) if difference else "",
        verdict.verdict if verdict else "baseline" if known else "no score",
        settings,
        str(one.search.epochs + one.final_epochs),
        f"{one.search.seconds + one.final_seconds:.0f}",
    ]


def _ends(low: float | None, high: float | None, *, signed: bool = False) -> str:
    if low is None or high is None:
        return ""
    form = "+.1f" if signed else ".1f"
    return f"{100 * low:{form}} to {100 * high:{form}}".replace("-", "−")
