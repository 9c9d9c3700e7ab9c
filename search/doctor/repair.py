"""`affinity-search doctor --repair` does at once what a running worker would repair beside its training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from affinity_search.search.doctor.study import Diagnosis, is_mended
from affinity_search.search.view.terminal import duration_text, plural
from affinity_search.storage import DEFAULT_LEASE_S
from affinity_search.storage.database.tables import USED
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.recovery import LOOKS_A_LEASE, Recovery, complete_halves
from affinity_search.storage.study import StoredStudy

LOOK_EVERY_S = (0.3, 1.0)  # the least and the most; busy machines missed a least of 0.1 s again and again
MARGIN_S = 5.0  # beyond the longest watch: a slow answer of the database starts the watch of a short lease anew


@dataclass
class Repair:
    """One observer of one study. Like every worker, it ends only what it has watched for a full lease itself. So it may
    run beside workers and other repairs.
    """

    study: StoredStudy
    files: StudyFiles | None
    say: Callable[[str], None]

    def mend(self, before: Diagnosis) -> list[str]:
        """Watch until nothing that `before` found is left, then remove leftovers. Returns one line for each repair."""
        lines = complete_halves(self.study)
        for line in lines:
            self.say(line)
        watch_s = self._watch_s(before)
        if watch_s:
            self.say(
                f"watching for up to {duration_text(watch_s)}: a worker loses its place only if it is silent for its "
                "full lease (Ctrl-C leaves; running workers do the same)"
            )
            lines += self._watch(before, watch_s)
        return lines + self._sweep()

    def _watch_s(self, before: Diagnosis) -> float:
        """How long to watch: the longest lease of a silent place. For a trial that names no place: a default lease."""
        leases = [one.lease_s for one in (*before.lost, *before.gone)]
        halves = [DEFAULT_LEASE_S if half.place is None else 0.0 for half in before.halves]
        return max([*leases, *halves], default=0.0)

    def _watch(self, before: Diagnosis, watch_s: float) -> list[str]:
        shortest = min([one.lease_s for one in (*before.lost, *before.gone)], default=DEFAULT_LEASE_S)
        every_s = max(LOOK_EVERY_S[0], shortest / LOOKS_A_LEASE)
        recovery = Recovery(self.study, every_s=every_s)
        mended: list[str] = []
        deadline = time.monotonic() + watch_s + MARGIN_S
        while True:
            for line in recovery.look():
                self.say(line)
                mended.append(line)
            if is_mended(recovery) or time.monotonic() > deadline:
                return mended
            time.sleep(min(every_s, LOOK_EVERY_S[1]))

    def _sweep(self) -> list[str]:
        if self.files is None:
            return []
        used = [place.number for place in Places.of(self.study).rows(*USED)]
        removed = self.files.sweep(used)
        if not removed:
            return []
        line = f"removed {plural(len(removed), 'checkpoint file')} of used places"
        self.say(line)
        return [line]
