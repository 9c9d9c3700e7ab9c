"""Options of the commands that run workers, and how a launch looks while it runs."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.devices.kinds import SOME_DEVICES
from affinity_search.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.api.preparing import Prepared
    from affinity_search.search.worker.exits import Exit
    from affinity_search.storage.database.backend import Backend

Workers = Annotated[
    int | None, typer.Option("--workers", metavar="W", min=1, max=1024, help="Number of workers on the CPU.")
]
Devices = Annotated[str, typer.Option("--devices", "--device", help=f"Devices to train on: {SOME_DEVICES}.")]
PerDevice = Annotated[
    int,
    typer.Option("--workers-per-device", metavar="K", min=1, max=64, help="Number of workers that share each GPU."),
]
Tpus = Annotated[
    list[str] | None, typer.Option("--tpu", metavar="NAME", help="Name of a TPU on another machine; repeatable.")
]
TpuStrategy = Annotated[
    bool, typer.Option("--tpu-strategy", help="One worker on all TPU chips of this machine, which share each batch.")
]
On = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="ray|ray://HOST:PORT", help="Run the workers on a Ray cluster: ray, or ray://HOST:PORT."
    ),
]

Track = Annotated[
    str | None,
    typer.Option(
        "--track",
        metavar="mlflow[=ADDRESS]",
        help="Send finished trials to MLflow: a server's URL, a folder or sqlite:///FILE.db. Default: "
        "MLFLOW_TRACKING_URI.",
    ),
]
Notify = Annotated[
    str | None,
    typer.Option(
        "--notify",
        metavar="URL",
        envvar="AFFINITY_SEARCH_NOTIFY",
        help="Post JSON there at the end, at a failed trial and at a new best; keep secrets in the variable.",
    ),
]


def refuse_both(on: str | None, tpus: list[str] | None, per_device: int, *, tpu_strategy: bool = False) -> None:
    """Options of this machine beside a cluster."""
    if on and (tpus or per_device != 1 or tpu_strategy):
        raise typer.BadParameter(
            "--tpu, --tpu-strategy and --workers-per-device are for this machine; leave them out with --on"
        )


def run_shown(prepared: Prepared) -> Exit:
    """Run the launch with a live view of it."""
    from affinity_search.search.view.terminal import HINT, progress_for
    from affinity_search.search.worker.stopping import StopSignals

    # From here on Ctrl-C stops the search, even before the first worker runs.
    with StopSignals() as signals, progress_for(prepared.agenda, lambda: "" if signals.draining else HINT) as progress:
        return prepared.run(progress, signals)


def storage_option(backend: Backend) -> str:
    """The --storage option that the next command needs; empty for the default. Never holds a password."""
    url = backend.url
    known = str(url) == DEFAULT_STORAGE or url.password or "AFFINITY_SEARCH_STORAGE" in os.environ
    return "" if known else f" --storage {shlex.quote(str(backend))}"
