"""`affinity-search verify`: train a recorded run again, and say whether the same comes out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.options import (
    AsJson,
    DataDir,
    Device,
    Storage,
    StudyName,
    Threads,
    TrialNumber,
    say,
    stored_study,
)
from affinity_search.search.worker.exits import Exit
from affinity_search.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.experiments.verify import Verified

EXAMPLES = (
    "affinity-search verify digits",
    "affinity-search verify digits --final --json",
)


def verify(
    study: StudyName,
    trial: TrialNumber = None,
    place: Annotated[
        int | None, typer.Option(metavar="K", min=0, max=2**31 - 1, help="Number of a place instead.")
    ] = None,
    final: Annotated[
        bool, typer.Option("--final", help="The trial's final runs instead: these read the test images again.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Train a recorded run again and judge it: equal, within this device's noise, or different, and in what.

    Code 0: equal, or within the noise between two trainings here. Code 6: different.
    """
    from affinity_search.search.devices.slots import own_device
    from affinity_search.search.experiments import verify as verifying
    from affinity_search.search.worker.setup import WorkerOptions

    if trial is not None and place is not None:
        raise typer.BadParameter("--trial and --place both name a run; give one of them")
    stored = stored_study(storage, study)
    options = WorkerOptions(own_device(device), threads, data_dir)
    found = []
    for run in verifying.runs_of(stored, trial, place, final=final):
        say(f"training {run.label} again: {len(run.trial.intermediate_values)} epochs")
        found.append(verifying.verify(run, options))
        verifying.keep(run, found[-1])
        if not as_json:
            _tell(found[-1])
    if as_json:
        typer.echo(json.dumps([each.to_dict() for each in found], indent=2))
    if any(each.verdict == "different" for each in found):
        raise typer.Exit(Exit.DIFFERENT)


def _tell(found: Verified) -> None:
    words = {
        "equal": "equal bit for bit",
        "within noise": "equal within the noise of this device",
        "different": "DIFFERENT",
    }
    typer.echo(f"{found.run}: {words[found.verdict]}")
    again = "not trained" if found.again is None else f"{found.again:.6f}"
    typer.echo(f"  {found.metric} recorded {found.recorded:.6f}, now {again}")
    if found.noise is not None:
        typer.echo(
            f"  greatest difference of any score {found.greatest:.2g}; between two trainings here {found.noise:.2g}"
        )
    for cause in found.causes:
        typer.echo(f"  {cause}")
