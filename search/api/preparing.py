"""A launch that knows its studies and its workers, and the launcher that keeps them alive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from affinity_search.search.api.launching import Launching, Say
from affinity_search.search.devices.slots import Slot
from affinity_search.search.launch.ahead import Ahead
from affinity_search.search.launch.launcher import Launcher
from affinity_search.search.launch.process import WorkerProcess
from affinity_search.search.launch.tracking.addresses import NOWHERE, Sending
from affinity_search.search.launch.tracking.beside import CollectorProcess
from affinity_search.search.launch.workload import long_trial_warning
from affinity_search.search.view.terminal import plural
from affinity_search.search.worker.exits import Exit
from affinity_search.search.worker.precision import settle_for
from affinity_search.search.worker.setup import tried_files
from affinity_search.search.worker.stopping import StopSignals
from affinity_search.storage.database.runtime import user_at_host
from affinity_search.storage.places.closing import close_if_flat
from affinity_search.storage.stored.agenda import Agenda
from affinity_search.storage.stored.stopping import resume
from affinity_search.storage.study import StoredStudy

if TYPE_CHECKING:
    from affinity_search.search.api import Progress


@dataclass(frozen=True)
class Prepared:
    """A launch that is ready to run."""

    agenda: Agenda
    slots: Sequence[Slot]
    launching: Launching
    new_worker: Callable[[Slot, Path], WorkerProcess]
    sending: Sending = NOWHERE

    def run(self, progress: Progress, signals: StopSignals) -> Exit:
        """Run until every place is used or somebody asks to stop. Raises as `Launcher.run`."""
        asked = self.launching
        launcher = Launcher(
            self.agenda,
            self.slots,
            asked.data_dir,
            show=progress.show,
            say=progress.say,
            lease_s=asked.lease_s,
            files=asked.files,
            outage_s=asked.outage_s,
            new_worker=self.new_worker,
        )
        where = ", ".join(slot.label for slot in self.slots)
        progress.say(f"{plural(len(self.slots), 'worker')} on {where}; logs in {launcher.logs}")
        with CollectorProcess(self.agenda, self.sending, asked.files, progress.say, lambda: signals.stopping):
            return launcher.run(signals)


def prepare(
    agenda: Agenda, asked: Launching, say: Say, slots: Sequence[Slot] | None = None, ahead: Ahead | None = None
) -> Prepared:
    """Settle what must be known before the first worker starts.

    `slots` are given if they were planned earlier, and `ahead` if a worker has begun there.
    """
    slots = asked.slots(say) if slots is None else slots
    agenda.advance()
    once = _Once(say)
    for stored in agenda.studies:
        stored = _gone_on(stored, say)
        close_if_flat(stored)  # the launcher tells it at its end
        tried_files(stored, asked.files, once)
        if slots and slots[0].device == "cpu" and (warning := long_trial_warning(stored.spec, slots[0].threads or 1)):
            once(warning)
        if asked.on is None:
            settle_for(stored, slots, once)
    own = next((study.spec.tracking.to for study in agenda.studies if study.spec.tracking), None)
    sending = (asked.sending or NOWHERE).or_of(own)
    if asked.on is None:
        return Prepared(agenda.refreshed(), slots, asked, partial(WorkerProcess, ahead=ahead), sending)
    from affinity_search.search.launch import on_ray

    on_ray.connect(asked.on, agenda.backend)
    return Prepared(agenda.refreshed(), on_ray.plan(asked.devices, asked.workers), asked, on_ray.RayWorker, sending)


class _Once:
    """Says every line once: the studies of a comparison have much in common."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said: set[str] = set()

    def __call__(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)


def _gone_on(stored: StoredStudy, say: Say) -> StoredStudy:
    """A stopped study goes on when somebody launches it."""
    if stored.stopped is None:
        return stored
    say(f"study {stored.name!r} was stopped; it goes on")
    return resume(stored, user_at_host())
