"""`affinity-search worker`: one worker in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.options import (
    DEFAULT_STORAGE,
    DataDir,
    LeaseS,
    Overrides,
    Rename,
    Storage,
    StudySource,
    Trials,
    asked_study,
)


def worker(
    study: StudySource,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, gpu:0 or tpu.")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default all.")] = None,
    trials: Trials = None,
    data_dir: DataDir = None,
    storage: Storage = DEFAULT_STORAGE,
    name: Rename = None,
    overrides: Overrides = None,
    lease_s: LeaseS = 120.0,
    worker_id: Annotated[str | None, typer.Option("--worker-id", hidden=True)] = None,
) -> None:
    """Run one worker here until no place is free; run it on any machine that reaches the storage.

    Ctrl-C once finishes the running trial, twice gives it back and stops now.
    """
    from search.accelerators import plan
    from search.worker import WorkerOptions, work

    if device == "auto":
        device = plan("auto", None)[0].device
    stored = asked_study(storage, study, name, overrides, trials)
    work(stored, WorkerOptions(device, threads, data_dir, worker_id, lease_s))
