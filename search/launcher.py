"""The launcher: worker processes on this machine's devices, restarted when they die, watched until the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from search import UNFIT_MACHINE_EXIT
from search.accelerators import Slot
from search.signals import StopSignals
from search.worker import new_worker_id
from storage.backend import Backend
from storage.patience import Patience, StorageGoneError
from storage.places import DEFAULT_LEASE_S, Places
from storage.recovery import LOOKS_A_LEASE, RecoveryThread, end_trial
from storage.study import StoredStudy
from studies.errors import AffinitySearchError

POLL_S = 0.5
DEATHS_BEFORE_FIRST_CLAIM = 3
GRACE_S = 10.0


class WorkersDieError(AffinitySearchError):
    """Workers cannot work here: the launcher stops with the last line of the last one's log."""


@dataclass
class Running:
    """A slot with the process that fills it at present."""

    slot: Slot
    logs: Path
    process: subprocess.Popen[bytes] | None = None
    worker_id: str = ""
    early_deaths: int = 0
    told: int | None = None  # the last signal that was passed on to the present process

    @property
    def log(self) -> Path:
        return self.logs / f"{self.worker_id}.log"

    def last_line(self) -> str:
        """The last words of the worker, for the person who wonders why it died."""
        lines = [
            line.removeprefix("error: ") for line in self.log.read_text(errors="replace").splitlines() if line.strip()
        ]
        return lines[-1] if lines else "(its log is empty)"


class Launcher:
    """Runs `slots` workers on a stored study until its places are used or somebody asks to stop."""

    def __init__(
        self,
        study: StoredStudy,
        slots: Sequence[Slot],
        data_dir: Path | None,
        *,
        show: Callable[[StoredStudy], None],
        say: Callable[[str], None],
        logs: Path | None = None,
        lease_s: float = DEFAULT_LEASE_S,
    ) -> None:
        self._study = study
        self._data_dir = data_dir
        self._show = show
        self._say = say
        self._lease_s = lease_s
        self._waiting = False
        self._told: int | None = None  # the last signal that was announced
        self.logs = logs or Path(tempfile.mkdtemp(prefix="affinity-search-"))
        self.workers = [Running(slot, self.logs) for slot in slots]

    @property
    def _places(self) -> Places:
        return Places(self._study.backend, self._study.token)

    def run(self) -> bool:
        """Returns whether every place is used.

        Raises:
            WorkersDieError: three workers in a row died before a first claim, or one found that this machine lacks its
                device or data.
        """
        with StopSignals() as signals:
            # A database that is away must not end the search: the workers wait for it, and so does their launcher.
            self._study = self._study.made_patient(Patience(self._say, give_up=signals.should_stop))
            with RecoveryThread(self._study, self._say, self._lease_s / LOOKS_A_LEASE):
                self._watch(signals)
        counts = self._places.counts()
        return counts.used == counts.total

    def _watch(self, signals: StopSignals) -> None:
        try:
            while self._step(signals):
                self._show(self._study)
                time.sleep(POLL_S)
        finally:
            self._end_all()

    def _step(self, signals: StopSignals) -> bool:
        """Look after every worker once; false when there is nothing left to wait for."""
        for worker in self.workers:
            code = worker.process.poll() if worker.process else None
            if code is not None:
                worker.process = None
                self._ended(worker, code, signals.draining)
        if signals.draining:
            self._pass_on(signal.SIGTERM if signals.stopping else signal.SIGINT)
        else:
            self._refill()
        return any(worker.process for worker in self.workers) or (not signals.draining and self._others_hold_places())

    def _others_hold_places(self) -> bool:
        """Whether workers elsewhere hold the last places: should one of them die, its place is trained here."""
        running = self._places.counts().running
        if running and not self._waiting:
            self._say(f"{running} places are held by other workers; waiting for them (Ctrl-C leaves)")
            self._waiting = True
        return running > 0

    def _refill(self) -> None:
        """Places can come back after a worker has left: one that died later, or one given back elsewhere."""
        idle = [worker for worker in self.workers if worker.process is None]
        free = self._places.counts().free if idle else 0
        for worker in idle[:free]:
            self._start(worker)

    def _start(self, worker: Running) -> None:
        worker.worker_id = f"{new_worker_id()}-{worker.slot.label.replace(':', '')}"
        command = [sys.executable, "-m", "search", "worker", "--device", worker.slot.device]
        command += ["--worker-id", worker.worker_id]
        command += ["--threads", str(worker.slot.threads)] if worker.slot.threads else []
        command += ["--lease-s", str(self._lease_s)]
        command += ["--data-dir", str(self._data_dir)] if self._data_dir else []
        with worker.log.open("wb") as log:
            worker.process = subprocess.Popen(
                [*command, "--", self._study.name],
                env=os.environ | worker.slot.environment | worker_environment(self._study.backend),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Its own process group: Ctrl-C in the terminal reaches the launcher alone, which passes it on.
                start_new_session=True,
            )
        worker.told = None

    def _ended(self, worker: Running, code: int, draining: bool) -> None:
        if code == 0:
            return
        if code == UNFIT_MACHINE_EXIT:
            raise WorkersDieError(worker.last_line())
        claimed = self._places.was_claimed_by(worker.worker_id)
        self._release(worker, f"its worker died ({_exit_text(code)})")
        if draining:
            return
        self._say(f"worker {worker.worker_id} died ({_exit_text(code)}): {worker.last_line()}; log: {worker.log}")
        worker.early_deaths = 0 if claimed else worker.early_deaths + 1
        if worker.early_deaths >= DEATHS_BEFORE_FIRST_CLAIM:
            raise WorkersDieError(
                f"{worker.early_deaths} workers in a row died on {worker.slot.label} before their first trial: "
                f"{worker.last_line()} (whole log: {worker.log})"
            )

    def _release(self, worker: Running, reason: str) -> None:
        for number in self._places.release_worker(worker.worker_id, reason):
            end_trial(self._study, number, TrialState.FAIL)

    def _pass_on(self, number: int) -> None:
        """Tell every worker once; not from the handler, which misses a worker that is being started."""
        for worker in self.workers:
            if worker.process and worker.told != number:
                worker.process.send_signal(number)
                worker.told = number
        if self._told != number:
            self._say(STOPPING if number == signal.SIGTERM else DRAINING)
            self._told = number

    def _end_all(self) -> None:
        """Whatever way the launcher leaves, no worker stays behind and no place stays held by one."""
        alive = [worker for worker in self.workers if worker.process]
        for worker in alive:
            assert worker.process is not None
            worker.process.terminate()
        deadline = time.monotonic() + GRACE_S
        for worker in alive:
            self._wait_or_kill(worker, deadline)

    def _wait_or_kill(self, worker: Running, deadline: float) -> None:
        assert worker.process is not None
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        with contextlib.suppress(StorageGoneError):  # then the place comes back when its lease ends
            self._release(worker, "its worker was stopped with the launcher")


STOPPING = "stopping now: running trials are given back"
DRAINING = "finishing the running trials, no new ones; Ctrl-C again gives them back and stops now"


def worker_environment(backend: Backend) -> dict[str, str]:
    """The URL goes to workers by environment: arguments can be read by every user of the machine."""
    return {"AFFINITY_SEARCH_STORAGE": backend.secret_url, "PYTHONUNBUFFERED": "1"}


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name}"
