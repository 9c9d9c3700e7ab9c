"""A comparison under kills: its workers, and now and then its command, in every phase.

The same comparison without a kill says what must come out, bit for bit.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from chaos_audit import ComparedAudit
from chaos_commands import LEASE_S, Commands, workers
from optuna.trial import TrialState
from psutil import NoSuchProcess, Process
from waiting import until
from warm import Warm

from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.errors import ComparisonNotFoundError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.stored.comparisons import StoredComparison, load_comparison
from affinity_search.studies.comparisons import load_comparison as read_comparison

FILE = Path(__file__).parent / "chaos-compare.toml"
SPEC = read_comparison(str(FILE), {})
SPARE = 4  # trainings that are left when the last kill is due
TRAININGS = sum(entry.spec.trials for entry in SPEC.entries) + len(SPEC.entries) * SPEC.draws
PAUSE_S = (0.0, 0.5)  # before a kill: some epochs
AT_ONCE_S = 0.1  # after a search's last place was used: final runs are planned meanwhile
LAUNCHER = 0.12  # how often its command is killed, beside a worker
IN_TRAINING = 0.85  # the share of victims that hold a place
PHASES = ("search", "no place", "final run")  # what the victim was at
HEADER = (
    "| database | kills | in a search | without a place | in a final run | commands killed | places | attempts "
    "| resumed | epochs trained twice | equal to the undisturbed | minutes |"
)


class Compared:
    """One comparison of a database of its own, and what happens to it."""

    def __init__(self, url: str, folder: Path, seed: int, address: str) -> None:
        self.url = url
        self.killed: Counter[str] = Counter()  # workers, by what they were at
        self.commands_killed = 0
        self._ends: set[int] = set()  # ends of searches that were met, by how many had ended before
        self._random = random.Random(seed)
        self._commands = Commands(url, folder, address)
        self._command: Warm | None = None

    def run(self, kills: int) -> None:
        """Kill so many workers, spread over the whole comparison, then let it end in peace."""
        self._compare()
        if kills:
            time.sleep(self._random.uniform(0.0, 2.0))
            self._kill_command()  # while it stores the comparison, or before its workers claim anything
        while self.killed.total() < kills and not self._is_over():
            self._wait_for((TRAININGS - SPARE) * self.killed.total() // kills)
            self._happen()
            happened = f"{dict(self.killed)}, {self.commands_killed} commands killed"
            print(f"{time.strftime('%H:%M:%S')} {happened}, {self._used()} of {TRAININGS} used", flush=True)
        self._look_until(self._is_over, "the comparison to end")

    def _wait_for(self, used: int) -> None:
        self._look_until(lambda: self._used() >= used, f"{used} trainings to end")

    def _look_until(self, look: Callable[[], bool], what: str) -> None:
        """Its user starts the command again whenever it has ended."""

        def again() -> bool:
            self._keep_going()
            return look()

        until(again, what, timeout_s=1200)

    def _keep_going(self) -> None:
        assert self._command is not None
        if self._command.poll() not in (None, 0):
            self._compare()

    def _is_over(self) -> bool:
        assert self._command is not None
        return self._command.poll() == 0

    def _compare(self) -> None:
        arguments = ["compare", str(FILE), "--workers", "2", "--devices", "cpu", "--lease-s", str(LEASE_S)]
        self._command = self._commands.start(arguments, "compare")

    def _happen(self) -> None:
        left = self._left()
        if left.count(1) and left.count(0) not in self._ends:
            self._ends.add(left.count(0))
            self._kill_where_a_search_ends(sum(left))
            return
        time.sleep(self._random.uniform(*PAUSE_S))
        if self._random.random() < LAUNCHER:
            self._kill_command()
        else:
            self._kill_worker(in_training=self._random.random() < IN_TRAINING)

    def _kill_command(self) -> None:
        """Its workers live on; the next command starts two more."""
        assert self._command is not None
        if self._command.poll() is None:
            self._command.kill()
            self._command.wait()
            self.commands_killed += 1
            self._compare()

    def _kill_worker(self, *, in_training: bool) -> None:
        """One chosen at random; if it is to train, one that has come as far as an epoch chosen at random."""
        epochs = self._random.randrange(SPEC.base.training.epochs) if in_training else None
        holders: dict[int, str] = {}
        victims: list[Process] = []

        def look() -> bool:
            holders.clear()
            holders.update(self._holders())
            trained = self._holders(epochs) if epochs else holders
            victims[:] = [one for one in workers() if not in_training or one.pid in trained]
            return bool(victims) or self._is_over()

        self._look_until(look, "a worker to kill")
        if victims:
            victim = self._random.choice(victims)
            with contextlib.suppress(NoSuchProcess):
                victim.kill()
                self.killed[holders.get(victim.pid, "no place")] += 1

    def _kill_where_a_search_ends(self, places: int) -> None:
        """Whoever used its last place may be planning the final runs."""
        self._look_until(lambda: sum(self._left()) < places, "a search's place to end")
        time.sleep(self._random.uniform(0.0, AT_ONCE_S))
        if self._random.random() < 0.5:
            self._kill_command()
        self._kill_worker(in_training=False)

    def _holders(self, epochs: int = 0) -> dict[int, str]:
        """Workers with a place whose trial has told of so many epochs, by process, and what they are at."""
        found = {}
        with self.comparison() as comparison:
            for study in comparison.studies if comparison else []:
                held = Places.of(study).held()
                trials = study.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) if held else []
                told: dict[int | None, int] = {one.number: len(one.intermediate_values) for one in trials}
                phase = "final run" if study.search else "search"
                found |= {row.pid: phase for row in held if told.get(row.trial, 0) >= epochs}
        return found

    def _used(self) -> int:
        with self.comparison() as comparison:
            return comparison.counts().used if comparison else 0

    def _left(self) -> list[int]:
        """Of each search: places that are not used."""
        with self.comparison() as comparison:
            counts = [Places.of(part.search).counts() for part in comparison.parts()] if comparison else []
            return [one.total - one.used for one in counts]

    @contextlib.contextmanager
    def comparison(self) -> Iterator[StoredComparison | None]:
        """As it is stored now; None before it is."""
        with contextlib.closing(open_backend(self.url, create=False)) as backend:
            try:
                found = load_comparison(backend, SPEC.name)
            except ComparisonNotFoundError:
                found = None
            yield found

    def end(self) -> None:
        """Leave no process behind, whatever happened."""
        for process in workers():
            process.kill()
        if self._command is not None and self._command.poll() is None:
            self._command.kill()


def row(database: str, compared: Compared, found: ComparedAudit, seconds: float) -> str:
    """A row of the table."""
    cells = [
        database,
        compared.killed.total(),
        *(compared.killed[phase] for phase in PHASES),
        compared.commands_killed,
        found.places,
        found.attempts,
        found.resumed,
        f"{found.twice} of {found.trained}",
        f"{found.equal} of {found.compared}",
        f"{seconds / 60:.1f}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"
