"""`affinity-search status`: how a search stands."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.options import AsJson, Files, Storage, console, opened, say
from affinity_search.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.view.snapshot import Best, ComparisonSnapshot, Snapshot
    from affinity_search.search.view.tables import Fitted
    from affinity_search.storage.database.backend import Backend
    from affinity_search.storage.stored.comparisons import StoredComparison
    from affinity_search.storage.study import StoredStudy


EXAMPLES = (
    "affinity-search status",
    "affinity-search status digits --watch",
)


def status(
    study: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", help="A stored study or comparison; without it all are listed."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until the places are used.")] = False,
    as_json: AsJson = False,
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
) -> None:
    """Show the stored studies and comparisons, or one of them: budget, best trial, workers, history."""
    if watch and (study is None or as_json):
        raise typer.BadParameter("--watch shows one study on a terminal; name the study and leave --json out")
    backend = opened(storage, read_only=True)
    if study is None:
        _show_all(backend, as_json)
        return
    from affinity_search.storage.stored.comparisons import find_comparison
    from affinity_search.storage.study import load_study

    comparison = find_comparison(backend, study)
    if comparison:
        if watch:
            _watch_comparison(comparison)
        _show_comparison(comparison, as_json)
        return
    stored = load_study(backend, study)
    if watch:
        _watch(stored)
    _show_one(stored, as_json, files)


def _show_all(backend: Backend, as_json: bool) -> None:
    """A comparison is one line; its studies are not listed beside it."""
    from affinity_search.search.view.snapshot import take, take_comparison
    from affinity_search.storage.stored.comparisons import comparison_names, load_comparison
    from affinity_search.storage.study import load_study, study_names

    studies = [load_study(backend, name) for name in study_names(backend)]
    snapshots = [take(study) for study in studies if as_json or study.comparison is None]
    if as_json:
        typer.echo(json.dumps([snapshot.to_dict() for snapshot in snapshots], indent=2))
        return
    comparisons = [take_comparison(load_comparison(backend, name)) for name in comparison_names(backend)]
    if comparisons:
        console(data=True).print(_comparisons(comparisons))
    if snapshots or not comparisons:
        console(data=True).print(_table(snapshots))


def _comparisons(snapshots: list[ComparisonSnapshot]) -> Fitted:
    from affinity_search.search.view.tables import Column, Fitted

    columns = [Column("comparison"), Column("by", rank=2), Column("contestants", rank=3)]
    columns += [Column("trainings done", right=True), Column("running", right=True, rank=1)]
    rows = [
        [
            one.comparison,
            one.label,
            ", ".join(dict.fromkeys(each.contestant for each in one.contests)),
            f"{one.used}/{one.total}",
            "stopped" if one.stopped and not one.running else str(len(one.running)),
        ]
        for one in snapshots
    ]
    return Fitted(columns, rows)


def _show_comparison(comparison: StoredComparison, as_json: bool) -> None:
    from affinity_search.search.view.snapshot import take_comparison
    from affinity_search.search.view.terminal import comparison_panel

    snapshot = take_comparison(comparison)
    if as_json:
        typer.echo(json.dumps(snapshot.to_dict(), indent=2))
        return
    console(data=True).print(comparison_panel(snapshot))
    say(f"its verdict: affinity-search report {shlex.quote(comparison.name)}")


def _watch_comparison(comparison: StoredComparison) -> None:
    from affinity_search.search.view.terminal import REFRESH_S, progress_for

    with progress_for(comparison, lambda: "Ctrl-C leaves; the comparison goes on") as progress:
        while comparison.is_unfinished:
            progress.show(comparison)
            time.sleep(REFRESH_S)


def _table(snapshots: list[Snapshot]) -> Fitted:
    from affinity_search.search.view.tables import Column, Fitted
    from affinity_search.studies.errors import either

    labels = dict.fromkeys(one.label for one in snapshots)
    columns = [
        Column("study"),
        Column("data", rank=3),
        Column("protocol", rank=4),
        Column("trials done", right=True),
        Column("running", right=True, rank=2),
        Column(f"best {either([*labels]) if labels else 'score'}", right=True, rank=1),
    ]
    rows = [
        [
            one.study,
            f"{one.title}, {one.imbalance}",
            one.protocol,
            f"{one.counts.used}/{one.counts.total}",
            _state(one),
            _best(one.best, named=len(labels) > 1) if one.best else "-",
        ]
        for one in snapshots
    ]
    return Fitted(columns, rows)


def _state(snapshot: Snapshot) -> str:
    """How many trials run, or why none will."""
    if snapshot.counts.running:
        return str(snapshot.counts.running)
    return "stopped" if snapshot.stopped else "closed" if snapshot.closed else "0"


def _best(best: Best, *, named: bool) -> str:
    return f"{best.score:.4f}" + (f" {best.label}" if named else "")


def _show_one(stored: StoredStudy, as_json: bool, root: Path | None) -> None:
    from affinity_search.search.launch.logs import folders
    from affinity_search.search.view.snapshot import lines_on, take
    from affinity_search.search.view.terminal import panel
    from affinity_search.storage.files import StudyFiles, default_root
    from affinity_search.storage.places.closing import hindsight
    from affinity_search.storage.results.bounds import crowded_bounds
    from affinity_search.storage.results.evaluations import openings
    from affinity_search.storage.results.pruning import pruning_of
    from affinity_search.storage.study import history

    snapshot = take(stored)
    logs = folders(StudyFiles(root or default_root(stored.backend.url), stored.token))
    bounds = [crowded.text for crowded in crowded_bounds(stored)]
    if as_json:
        flat = hindsight(stored)
        extra = {
            "pruning": pruning_of(stored).to_dict(),
            "would_have_stopped": flat and flat.to_dict(),
            "bounds": bounds,
            "logs": [str(folder) for folder in logs],
            "history": history(stored),
            "test_openings": openings(stored),
            "definition": stored.spec.to_dict(),
        }
        typer.echo(json.dumps(snapshot.to_dict() | extra, indent=2))
        return
    out = console(data=True)
    out.print(panel(snapshot))
    for line in [*lines_on(stored), *bounds]:
        out.print(line, markup=False)
    for event in history(stored):
        out.print(f"{_when(event['at'])}  {event['kind']}: {event['text']}", markup=False)
    for opening in openings(stored):
        what = f"test set opened for trial {opening['trial']} by {opening['opened_by']}"
        end = "" if opening["finished"] else " (not finished)"
        out.print(f"{_when(opening['opened_at'])}  {what}{end}", markup=False)
    if logs:
        out.print(f"logs of the last launch on this machine: {logs[0]}", markup=False, soft_wrap=True)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _watch(stored: StoredStudy) -> None:
    from affinity_search.search.view.terminal import REFRESH_S, progress_for
    from affinity_search.storage.places.claims import Places
    from affinity_search.storage.stored.agenda import OneStudy

    places = Places.of(stored)
    with progress_for(OneStudy(stored), lambda: "Ctrl-C leaves; the search goes on") as progress:
        while (counts := places.counts()).used < counts.total:
            progress.show(OneStudy(stored.refreshed()))
            time.sleep(REFRESH_S)
