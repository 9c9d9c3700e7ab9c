"""The launcher starts worker processes on this machine's devices, watches them and restarts them when they die."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from affinity_search.search.devices.slots import Slot, trouble
from affinity_search.search.launch.logs import new_folder
from affinity_search.search.launch.process import WorkerProcess, exit_text
from affinity_search.search.view.publishing import ReportingThread
from affinity_search.search.view.snapshot import last_end_s, take
from affinity_search.search.view.terminal import rough_text
from affinity_search.search.worker.exits import Exit
from affinity_search.search.worker.setup import sweep
from affinity_search.search.worker.stopping import StopListener, StopSignals
from affinity_search.storage import DEFAULT_LEASE_S, DEFAULT_LIMIT_S
from affinity_search.storage.database.patience import Patience
from affinity_search.storage.database.tables import USED, PlaceState
from affinity_search.storage.errors import RepeatedFailureError, StorageGoneError, VanishedError
from affinity_search.storage.files import StudyFiles, default_root
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.closing import closing_of
from affinity_search.storage.places.counts import counts_of, leases_of
from affinity_search.storage.places.recovery import LOOKS_A_LEASE, RecoveryThread, complete_halves
from affinity_search.storage.stored.agenda import Agenda
from affinity_search.storage.study import StoredStudy
from affinity_search.studies.errors import AffinitySearchError

POLL_S = 0.5
DEATHS_BEFORE_FIRST_CLAIM = 3
GRACE_S = 10.0
TROUBLE_S = 10.0  # a GPU may be full for a moment: memory of a dead process is freed a little later
START_S = 120.0  # until a worker's first claim at most; on a busy machine with a GPU it took 20 s
MEMORY_FAILURES = 2  # so many on one GPU, with no trial in between, and no worker starts there any more


class WorkersDieError(AffinitySearchError):
    """Workers cannot work here. The launcher stops with the last worker's last line and exit code."""

    def __init__(self, reason: str, exit_code: Exit = Exit.FAILED) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class Launcher:
    """Runs `slots` workers on a study, or on those of a comparison, until all places are used or somebody stops it."""

    def __init__(
        self,
        agenda: Agenda,
        slots: Sequence[Slot],
        data_dir: Path | None,
        *,
        show: Callable[[Agenda, Sequence[str]], None],
        say: Callable[[str], None],
        logs: Path | None = None,
        lease_s: float = DEFAULT_LEASE_S,
        files: Path | None = None,
        outage_s: float = DEFAULT_LIMIT_S,
        new_worker: Callable[[Slot, Path], WorkerProcess] = WorkerProcess,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agenda = agenda
        self._data_dir = data_dir
        self._root = files or default_root(agenda.backend.url)
        self._outage_s = outage_s
        self._since = agenda.backend.time()
        self._beside: dict[str, contextlib.ExitStack] = {}  # by study: the threads that run beside its workers
        self._started: list[str] = []  # every worker so far
        self._idle_since: dict[str, float] = {}  # workers without a place while places are free, by the clock
        self._show = show
        self._say = say
        self._lease_s = lease_s
        self._clock = clock
        self._waiting = False
        self._told: int | None = None  # the last signal that was announced
        self._unfit = Exit.FAILED  # the exit code for the device that was given up last
        self.logs = logs or new_folder(StudyFiles(self._root, agenda.token), say)
        self.workers = [new_worker(slot, self.logs) for slot in slots]

    @property
    def _places(self) -> list[Places]:
        return [Places.of(study) for study in self._agenda.studies]

    def run(self, signals: StopSignals | None = None) -> Exit:
        """`signals` are handled already; without them this handles them itself.

        Returns DONE when every place is used, NO_SCORE if all that were used now failed, STOPPED if some are left.
        While it runs, every study with places left has a thread that recovers them and one that writes its notes.

        Raises:
            WorkersDieError: no device is left where workers can work, the data is missing, or three places in a row
            failed for the same cause. A device is given up if it is gone or full, if two workers ran out of memory, or
            if three in a row died before a first claim.
            VanishedError: the SQLite file is gone, and the workers have ended.
        """
        with contextlib.nullcontext(signals) if signals else StopSignals() as signals:
            # If the database does not answer, the launcher waits for it as its workers do.
            patience = Patience(self._say, limit_s=self._outage_s, give_up=signals.should_stop)
            self._agenda = self._agenda.made_patient(patience)
            self._listener = StopListener(signals, self._say)
            try:
                self._watch(signals)
            finally:
                self._look_after([])
        for study in self._agenda.studies:
            sweep(StudyFiles(self._root, study.token), Places.of(study))
            if closing := closing_of(study.refreshed()):
                self._say(closing.text(study.under_its_name().name))
        return self._outcome()

    def _look_after(self, studies: Sequence[StoredStudy]) -> None:
        """Recover and report these studies from now on, and no others."""
        wanted = {study.token: study for study in studies}
        for token in self._beside.keys() - wanted.keys():
            self._beside.pop(token).close()
        for token in wanted.keys() - self._beside.keys():
            threads = self._beside[token] = contextlib.ExitStack()
            every_s = self._lease_s / LOOKS_A_LEASE
            threads.enter_context(RecoveryThread(wanted[token], self._say, every_s, self._listener))
            threads.enter_context(ReportingThread(wanted[token], self._say))

    def _unfinished(self) -> list[StoredStudy]:
        studies = self._agenda.studies
        counts = counts_of(self._agenda.backend, [study.token for study in studies])
        return [study for study in studies if counts[study.token].used < counts[study.token].total]

    def _outcome(self) -> Exit:
        counts = self._agenda.counts()
        if self._agenda.advance() or counts.used < counts.total:
            return Exit.STOPPED
        used = [place for places in self._places for place in places.rows(*USED)]
        now = [place for place in used if (place.finished_at or 0.0) >= self._since] or used
        return Exit.NO_SCORE if all(place.state == PlaceState.SPENT for place in now) else Exit.DONE

    def _watch(self, signals: StopSignals) -> None:
        try:
            while self._step(signals):
                self._look_after(self._unfinished())
                self._show(self._agenda, [worker.worker_id for worker in self.workers if worker.process])
                time.sleep(POLL_S)
        finally:
            self._end_all()

    def _step(self, signals: StopSignals) -> bool:
        """Check every worker once. Returns false when there is nothing left to wait for."""
        for worker in self.workers:
            code = worker.process.poll() if worker.process else None
            if code is not None:
                worker.process = None
                self._ended(worker, code, signals.draining)
                self._check_failures()
        if signals.draining:
            self._pass_on(signal.SIGTERM if signals.stopping else signal.SIGINT)
        else:
            self._refill(signals)
        if any(worker.process for worker in self.workers):
            return True
        return not signals.draining and (self._a_device_may_recover() or self._others_hold_places())

    def _check_failures(self) -> None:
        for study in self._agenda.studies:
            if study.comparison is not None:
                return  # this contestant fails, and the others go on
            try:
                Places.of(study).refuse_repeated_failure(self._started, self._since)
            except RepeatedFailureError as error:
                raise WorkersDieError(str(error), Exit.UNFIT_MACHINE) from error

    def _a_device_may_recover(self) -> bool:
        return any(worker.troubled_since is not None and worker.retired is None for worker in self.workers)

    def _others_hold_places(self) -> bool:
        """Whether workers elsewhere hold the last places. If one of them dies, its place is trained here."""
        running = self._agenda.counts().running
        if running and not self._waiting:
            self._say(f"{running} places are held by other workers; waiting for them (Ctrl-C leaves)")
            self._waiting = True
        return running > 0

    def _refill(self, signals: StopSignals) -> None:
        """Start workers for free places. Places can become free after a worker has left: another worker died or
        stopped.
        """
        idle = [worker for worker in self.workers if worker.process is None]
        if idle:
            self._agenda.advance()
        free = self._agenda.counts().free if idle else 0
        if free:
            for study in self._agenda.studies:
                self._listener(study.refreshed())
            if signals.draining:
                return
        if free and idle[-1].retired:
            self._require_a_device(idle[-1].retired)
        able = [worker for worker in idle if not worker.retired]
        free = self._untaken(wanted=bool(free and able))
        for worker in able:
            if free <= 0:
                worker.troubled_since = None  # its device is not checked now
            elif self._is_well(worker):
                self._start(worker)
                free -= 1

    def _untaken(self, *, wanted: bool) -> int:
        """Free places that no worker here is about to take; 0 if nobody wants to know, because none could begin.

        A worker without a place takes a free one next, or it ends. One more worker would find nothing to do, or would
        begin on a GPU that has just had no room. A worker that holds nothing for long hangs, and is not waited for.
        Who claims or releases a place during the look counts as a worker without one.
        """
        if not wanted:
            self._idle_since = {}
            return 0
        before = self._held()
        free = self._agenda.counts().free
        holding = {worker for worker, _ in before & self._held()}
        now = self._clock()
        idle = [worker.worker_id for worker in self.workers if worker.process and worker.worker_id not in holding]
        self._idle_since = {worker: self._idle_since.get(worker, now) for worker in idle}
        return free - sum(now - since < START_S for since in self._idle_since.values())

    def _held(self) -> set[tuple[str, str]]:
        return leases_of(self._agenda.backend, [study.token for study in self._agenda.studies])

    def _is_well(self, worker: WorkerProcess) -> bool:
        """Whether a worker can start there now. A device that has been in trouble for long is given up."""
        reason = trouble(worker.slot)
        if reason is None:
            worker.troubled_since = None
            return True
        now = self._clock()
        if worker.troubled_since is None:
            worker.troubled_since = now
        if now - worker.troubled_since >= TROUBLE_S:
            self._retire([worker], reason, Exit.UNFIT_DEVICE)
        return False

    def _retire(self, workers: Sequence[WorkerProcess], reason: str, code: Exit) -> None:
        """Give up the device of these workers: no worker starts there again. Other devices go on."""
        self._unfit = code
        for worker in workers:
            worker.retired = reason
        self._require_a_device(reason)
        self._say(f"no more workers on {workers[0].slot.label}: {reason}")

    def _require_a_device(self, reason: str) -> None:
        if all(one.retired and one.process is None for one in self.workers):
            raise WorkersDieError(reason, self._unfit)

    def _start(self, worker: WorkerProcess) -> None:
        options = ["--lease-s", str(self._lease_s), "--outage-s", str(self._outage_s), "--files", str(self._root)]
        options += ["--data-dir", str(self._data_dir)] if self._data_dir else []
        worker.start(self._agenda.under_its_name(), options)
        self._started.append(worker.worker_id)

    def _ended(self, worker: WorkerProcess, code: int, draining: bool) -> None:
        if code in (Exit.DONE, Exit.STOPPED):
            return
        if code == Exit.UNFIT_MACHINE:
            raise WorkersDieError(worker.last_line(), Exit.UNFIT_MACHINE)
        if code == Exit.VANISHED:
            self._agenda.backend.check()
            # From here the file is in order: it came back, or the worker runs on another machine.
            raise VanishedError(worker.last_line())
        if code == Exit.UNFIT_DEVICE:
            self._retire([worker], worker.last_line(), Exit.UNFIT_DEVICE)
            return
        if code == Exit.OUT_OF_MEMORY:
            self._ran_out_of_memory(worker)
            return
        claimed = any(places.was_claimed_by(worker.worker_id) for places in self._places)
        self._release(worker, f"its worker died ({exit_text(code)})")
        if draining:
            return
        self._say(f"worker {worker.worker_id} died ({exit_text(code)}): {worker.last_line()}; log: {worker.log}")
        worker.early_deaths = 0 if claimed else worker.early_deaths + 1
        if worker.early_deaths >= DEATHS_BEFORE_FIRST_CLAIM:
            self._retire(
                [worker],
                f"{worker.early_deaths} workers in a row died on {worker.slot.label} before their first trial: "
                f"{worker.last_line()} (whole log: {worker.log})",
                Exit.FAILED,
            )

    def _ran_out_of_memory(self, worker: WorkerProcess) -> None:
        """The worker has given up its place. After the second time no worker starts on that GPU any more.

        Workers that share a GPU are counted together. Those that run there go on while they can. If the worker had
        ended a trial before, the count starts anew: then another program took the memory.
        """
        slot = worker.slot
        sharing = [one for one in self.workers if one is worker or (slot.uuid and one.slot.uuid == slot.uuid)]
        if any(places.was_used_by(worker.worker_id) for places in self._places):
            for one in sharing:
                one.memory_failures = 0
        worker.memory_failures += 1
        if not worker.retired and sum(one.memory_failures for one in sharing) >= MEMORY_FAILURES:
            self._retire(sharing, f"{slot.label} ran out of memory twice: {worker.last_line()}", Exit.OUT_OF_MEMORY)

    def _release(self, worker: WorkerProcess, reason: str) -> None:
        """The worker is gone: free its place and end its trial here."""
        for study in self._agenda.studies:
            Places.of(study).release_worker(worker.worker_id, reason)
            complete_halves(study)

    def _pass_on(self, number: int) -> None:
        """Tell every worker once. The signal handler cannot: it would miss a worker that is being started."""
        for worker in self.workers:
            worker.tell(number)
        if self._told != number:
            self._say(STOPPING if number == signal.SIGTERM else self._draining_text())
            self._told = number

    def _draining_text(self) -> str:
        ends = [last_end_s(take(study)) for study in self._unfinished() if Places.of(study).counts().running]
        known = [end for end in ends if end is not None]
        lasts = max(known) if known and len(known) == len(ends) else None
        about = " (for an unknown time, as their first epoch is not over)"
        if lasts is not None:
            about = f" (at most about {rough_text(lasts)})"
        return f"finishing the running trials{about}, no new ones; Ctrl-C again gives them back and stops now"

    def _end_all(self) -> None:
        """However the launcher ends: stop all workers and free their places."""
        alive = [worker for worker in self.workers if worker.process]
        for worker in alive:
            worker.tell(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        for worker in alive:
            worker.wait_or_kill(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(StorageGoneError):  # then the places become free when their leases end
            for worker in alive:
                self._release(worker, "its worker was stopped with the launcher")
            # Workers that died unseen may have left half-ended trials too.
            for study in self._agenda.studies:
                complete_halves(study)


STOPPING = "stopping now: running trials are given back"
