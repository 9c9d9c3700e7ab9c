"""A worker's process: its set-up, then one place after the other until none is free."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from affinity_search.search.devices.errors import told_as_unfit
from affinity_search.search.devices.kinds import CPU
from affinity_search.search.devices.nvidia import card, free_mib
from affinity_search.search.devices.packages import UNNEEDED, without
from affinity_search.search.training.errors import OutOfMemoryError
from affinity_search.search.view.pictures import Album
from affinity_search.search.view.publishing import ReportingThread
from affinity_search.search.worker.images import StudyImages, refuse_too_large
from affinity_search.search.worker.loop import Worker, say
from affinity_search.search.worker.precision import settle
from affinity_search.search.worker.stopping import Deadline, StopListener, StopSignals
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage import DEFAULT_LEASE_S, DEFAULT_LIMIT_S
from affinity_search.storage.database.patience import Patience
from affinity_search.storage.database.runtime import collect_what_is_left, collector_skipping, user_at_host
from affinity_search.storage.database.tables import USED
from affinity_search.storage.errors import StorageError
from affinity_search.storage.files import StudyFiles, default_root, why_not_writable
from affinity_search.storage.places.claims import Holder, Places
from affinity_search.storage.places.closing import close_if_flat
from affinity_search.storage.places.recovery import LOOKS_A_LEASE, RecoveryThread
from affinity_search.storage.stored.agenda import Agenda
from affinity_search.storage.study import StoredStudy


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker runs on. `device` is as for `devices.configure`. With `threads` None the framework chooses.

    `files` None is the storage's default folder. `outage_s` is how long the storage may be away.
    """

    device: str
    threads: int | None = None
    data_dir: Path | None = None
    worker_id: str | None = None
    lease_s: float = DEFAULT_LEASE_S
    files: Path | None = None
    outage_s: float = DEFAULT_LIMIT_S
    memory_mib: int | None = None
    signals: StopSignals | None = None  # the caller's: it can see afterwards whether somebody asked to stop


def new_worker_id() -> str:
    """An id for a worker process: the host and a random part. It is unique and can be read in tables."""
    return f"{socket.gethostname()[:40]}-{secrets.token_hex(3)}"


def work(agenda: Agenda, options: WorkerOptions) -> int:
    """Use up places until none is free or somebody asks to stop. Returns how many trials ended.

    In a comparison the worker goes on to the next study when one has no free place.

    Raises:
        DeviceError, DataError: this machine cannot train the study; no place is claimed.
        OutOfMemoryError: the GPU has no room for a trial; its place was given up.
    """
    with options.signals or StopSignals(announce) as signals:
        agenda = agenda.made_patient(Patience(say, limit_s=options.outage_s, give_up=signals.should_stop))
        listener = StopListener(signals, say)
        holder = replace(options, worker_id=options.worker_id or new_worker_id(), signals=signals)
        ended = 0
        with Deadline() as deadline:
            for number, study in enumerate(_one_after_the_other(agenda, listener, signals)):
                if number:
                    collect_what_is_left()  # of the study before: this one has a network and images of its own
                # A launcher writes the study's notes. A worker without a launcher writes them itself.
                reporting = contextlib.nullcontext() if options.worker_id else ReportingThread(study, say)
                with RecoveryThread(study, say, options.lease_s / LOOKS_A_LEASE, listener), reporting:
                    try:
                        ended += _use_up_places(study, holder, listener, deadline)
                    except OutOfMemoryError as error:
                        error.trials_ended += ended
                        raise
                deadline.last_resort = lambda: None
        say(f"worker {holder.worker_id}: {ended} trials ended" + (", stopped" if signals.draining else ""))
        return ended


PAUSE_S = 0.5


def _one_after_the_other(agenda: Agenda, listener: StopListener, signals: StopSignals) -> Iterator[StoredStudy]:
    """The studies with a free place. While others still train what decides about the next ones, wait for them."""
    first = True
    while not signals.draining:
        pending = agenda.advance()
        study = agenda.next()
        if first or study:
            for each in [study] if study else agenda.studies:
                listener(each.refreshed())  # a stopped study gives nobody a place
        if signals.draining or (study is None and not pending):
            return
        if study is None:
            time.sleep(PAUSE_S)
            continue
        first = False
        yield study


def _use_up_places(study: StoredStudy, options: WorkerOptions, listener: StopListener, deadline: Deadline) -> int:
    signals = options.signals
    assert signals is not None, "given by `work`"
    since = study.backend.time()
    with told_as_unfit(), collector_skipping():  # it would scan all that is imported, half a dozen times
        worker = _prepare(study, options)
    deadline.last_resort = worker.abandon
    ended = 0
    _close_if_flat(study)  # another worker may have died before it could
    while not signals.draining and (claim := worker.places.claim(worker.holder)):
        try:
            ended += worker.run(claim, signals.should_stop)
            _close_if_flat(worker.study)
        except OutOfMemoryError as error:
            error.trials_ended = ended
            raise
        # In a comparison the others go on, and the report says that this contestant failed.
        if worker.last_failed and study.comparison is None:
            worker.places.refuse_repeated_failure([worker.holder.worker], since)
    if not signals.draining:
        listener(study.refreshed())
    return ended


def _close_if_flat(study: StoredStudy) -> None:
    told = close_if_flat(study)
    if told:
        say(told)


def announce(signals: StopSignals) -> None:
    """Called from the signal handler. `print` is not safe there: the signal may have interrupted another `print`."""
    message = "stopping now, the trial is given back" if signals.stopping else "no new trial after this one"
    with contextlib.suppress(OSError):  # a full disk under the log
        os.write(2, f"{time.strftime('%H:%M:%S')} {message}\n".encode())


def _prepare(study: StoredStudy, options: WorkerOptions) -> Worker:
    from affinity_search.search import devices

    gpu, free = card(options.device), free_mib(options.device)  # before a backend changes CUDA_VISIBLE_DEVICES
    with without(*UNNEEDED):  # in a worker nobody else uses this Keras, which would know their packages
        device = devices.configure(options.device, options.threads, options.memory_mib)
    asked, widths = study.spec.training.precision, study.spec.network.widths
    study = settle(study, device.settle_precision(asked, widths), device.kind is CPU, say)
    holder = Holder(
        worker=options.worker_id or new_worker_id(),
        host=socket.gethostname(),
        pid=os.getpid(),
        device=device.describe(),
    )
    say(f"worker {holder.worker} on {holder.device}, {study.precision}, study {study.name}")
    images = StudyImages(study, options.data_dir, say)
    trainer = StudyTrainer(device, study.spec, study.settled_precision, images.folder, seen=images)
    if trainer.note:
        say(trainer.note)
    room = options.memory_mib or free or psutil.virtual_memory().available >> 20
    refuse_too_large(study.spec, trainer.image_bytes, room << 20, device.describe())
    if study.search is not None:
        # After the training images: where they are missing, the test images stay unopened.
        study.record("opened", f"the test images, by {user_at_host()}, worker {holder.worker}")
        trainer.open_test()
    places = Places.of(study, options.lease_s)
    files = StudyFiles(options.files or default_root(study.backend.url), study.token)
    sweep(files, places)
    study.read_ahead()  # the sampler needs all trials; thousands take seconds, outside of the first trial
    spec = study.spec
    names = spec.data.source.classes
    album = Album(files, trainer.class_sizes, say, names, trainer.minority, spec.metric, spec.network.head)
    return Worker(study, holder, trainer, places, devices.versions(), files, album, gpu)


def tried_files(stored: StoredStudy, files: Path | None, say: Callable[[str], None]) -> None:
    """Check before the work that the study's folder can be written. Without --files the search goes on without it.

    Raises:
        StorageError: the folder that was asked for cannot be written.
    """
    root = files or default_root(stored.backend.url)
    reason = why_not_writable(root / stored.token)
    if reason and files:
        raise StorageError(f"--files {files} cannot be written: {reason}; name another folder")
    if reason:
        say(f"{root} cannot be written ({reason}); no checkpoints and pictures are kept; name a folder with --files")


def sweep(files: StudyFiles, places: Places) -> None:
    """Remove the checkpoints of used places. A worker that died right after a place's end leaves one."""
    if files.checkpoints.is_dir():
        files.sweep(place.number for place in places.rows(*USED))
