"""`affinity-search track`: sends finished trials and news of a search that runs elsewhere, or has ended."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.launching import Notify, storage_option
from affinity_search.search.cli.options import Files, Storage, opened, say
from affinity_search.search.worker.exits import Exit
from affinity_search.storage import DEFAULT_STORAGE, SENDING_LEASE_S

if TYPE_CHECKING:
    from affinity_search.search.launch.tracking.addresses import Sending
    from affinity_search.search.launch.tracking.collector import Collector
    from affinity_search.storage.database.backend import Backend
    from affinity_search.storage.stored.agenda import Agenda

EXAMPLES = (
    "affinity-search track digits --to mlflow=http://mlflow.lab:5000",
    "affinity-search track digits --to mlflow=runs --watch",
)


def track(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name of a stored study or comparison.")],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="mlflow[=ADDRESS]",
            help="A server's URL, a folder or sqlite:///FILE.db. Default: MLFLOW_TRACKING_URI, or the study's.",
        ),
    ] = None,
    notify: Notify = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until every place is used.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Forget what was sent, and send all that MLflow has lost.")
    ] = False,
    files: Files = None,
    storage: Storage = DEFAULT_STORAGE,
    lease_s: Annotated[float, typer.Option("--lease-s", min=1.0, max=86_400.0, hidden=True)] = SENDING_LEASE_S,
    beside: Annotated[bool, typer.Option("--beside", hidden=True, help="A launcher's: end when stdin does.")] = False,
) -> None:
    """Send the finished trials that MLflow has not got yet, and the news of the search. Nothing is sent twice."""
    from affinity_search.search.launch.tracking.addresses import Sending
    from affinity_search.search.launch.tracking.collector import Collector, command
    from affinity_search.storage.database.backend import open_backend
    from affinity_search.storage.errors import OutdatedError
    from affinity_search.storage.files import default_root

    sending = Sending.asked(to, notify)
    try:
        backend = opened(storage)
    except OutdatedError:
        backend = open_backend(storage, create=True)
    agenda = _named(backend, study)
    sending = sending if beside else _or_stored(sending, agenda)
    collector = Collector(agenda, sending, files or default_root(backend.url), say, lease_s)
    if again:
        collector.forget()
    if beside:
        _run_beside(collector)
    else:
        if watch:
            _watch(collector)
        collector.send_all()
        if not collector.unsent and not any(post.sent for post in collector.posts):
            say("nothing is missing")
    collector.tell(command(agenda, sending, storage_option(backend)))
    raise typer.Exit(Exit.FAILED if collector.unsent and not beside else Exit.DONE)


def _named(backend: Backend, name: str) -> Agenda:
    from affinity_search.storage.stored.agenda import OneStudy
    from affinity_search.storage.stored.comparisons import find_comparison
    from affinity_search.storage.study import load_study

    return find_comparison(backend, name) or OneStudy(load_study(backend, name))


def _or_stored(sending: Sending, agenda: Agenda) -> Sending:
    """Where nothing was asked for: MLflow's own variable, or the study's table [tracking]."""
    from affinity_search.search.launch.children import URI
    from affinity_search.search.launch.tracking.addresses import TrackingError

    if sending.mlflow is None:
        own = next((study.spec.tracking.to for study in agenda.studies if study.spec.tracking), None)
        sending = sending.or_of(own or ("mlflow" if os.environ.get(URI) and not sending.notify else None))
    if not sending:
        raise TrackingError(
            f"nowhere to send to: affinity-search track {shlex.quote(agenda.name)} --to mlflow=ADDRESS, or --notify URL"
        )
    return sending


def _watch(collector: Collector) -> None:
    import time

    collector.look()
    while not collector.is_over or collector.unsent:
        time.sleep(collector.pause_s)
        collector.look()


def _run_beside(collector: Collector) -> None:
    """Until the launcher closes its end of the pipe, or is gone. What it wrote there is why the launch failed."""
    import contextlib
    import select

    from affinity_search.search.launch.tracking.collector import LAST_TRY_S

    with contextlib.suppress(OSError):
        os.nice(10)  # it takes what the workers leave
    while True:
        collector.look()
        if select.select([sys.stdin], [], [], collector.pause_s)[0]:
            break
    if reason := sys.stdin.read().strip():
        collector.tell_failure(reason)
    collector.send_all(LAST_TRY_S)
