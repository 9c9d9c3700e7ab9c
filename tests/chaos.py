"""A real search under real disasters: kills, stops, outages, on SQLite or PostgreSQL, with a real Keras.

    python tests/chaos.py long sqlite --kills 100

`long` trials take seconds, and meet every disaster. `short` ones take a fraction of a second, with TPE and a pruner,
and their workers are killed at random moments. `ends` are the same, killed where a trial ends. `compare` kills the
workers of a comparison and its command; what comes out must equal the same comparison without a kill. The run prints a
line of Markdown. Its exit code is 1 if anything was lost, counted twice or cannot be reproduced, or if a launch that
ended by itself left anything RUNNING.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import chaos_comparison
import psutil
from chaos_audit import Audit, audit, audit_comparison, halves, told_by
from chaos_commands import LEASE_S, Commands, workers
from chaos_comparison import Compared
from postgres_server import Restartable, restartable_server
from sqlalchemy import text
from waiting import until
from warm import TRAINING, Warm, warm_process

from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.errors import StudyNotFoundError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.stored.comparisons import StoredComparison
from affinity_search.storage.study import StoredStudy, load_study
from affinity_search.studies.files import load

HERE = Path(__file__).parent
OUTAGE_S = 8.0  # longer than a lease
STOPPED_S = 10.0
END_S = 0.03  # what follows a trial's last report takes less


@dataclass(frozen=True)
class Mode:
    """A kind of search and what happens to it."""

    study: Path
    pause_s: tuple[float, float]  # between two disasters
    in_training: float  # the share of victims that hold a place; the others may be starting
    more_places: int  # when all are used and more workers are to be killed
    others: dict[str, float] = field(default_factory=dict)  # how often each happens, beside the kills
    at_the_end: bool = False  # kills come where a trial ends
    after_a_trial: bool = False  # between two disasters a trial ends, or slow machines would only kill what starts


ALL = {"stop": 0.10, "launcher": 0.06, "outage": 0.06, "preempt": 0.10, "recoveries": 0.06}
MODES = {
    "long": Mode(HERE / "chaos.toml", (1.0, 6.0), 0.85, 4, ALL),
    "short": Mode(HERE / "chaos-short.toml", (0.0, 2.0), 0.95, 40, after_a_trial=True),
    "ends": Mode(HERE / "chaos-short.toml", (0.0, 1.0), 1.0, 40, at_the_end=True, after_a_trial=True),
}
HEADER = (
    "| trials | database | kills | stopped | preempted | launchers killed | outages | places | pruned | attempts "
    "| resumed | lost | duplicated | halves at a launch's end | epochs trained twice | equal to a retraining "
    "| minutes |"
)


class Chaos:
    """One search, and whatever happens to it."""

    def __init__(self, url: str, folder: Path, outage: Callable[[], None], seed: int, mode: Mode, address: str) -> None:
        """`address` as for `Commands`."""
        self.url = url
        self.mode = mode
        self.halves: list[str] = []  # what launches that ended by themselves left
        self.happened: Counter[str] = Counter()
        self._outage = outage
        self._random = random.Random(seed)
        self._commands = Commands(url, folder, address)
        self._places = 0
        self._disasters: dict[str, Callable[[], bool]] = {
            "kill": self._kill_at_the_end if mode.at_the_end else lambda: self._signal(signal.SIGKILL) is not None,
            "preempt": lambda: self._signal(signal.SIGTERM) is not None,
            "stop": self._stop,
            "launcher": self._kill_launcher,
            "outage": self._let_database_rest,
            "recoveries": self._recover_twice,
        }
        self._launcher: Warm | None = None

    def run(self, kills: int) -> None:
        """Let disasters happen until so many workers were killed, then let the search end in peace."""
        self._launch()
        until(self._begun, "the first claim", timeout_s=300)
        while self.happened["kill"] < kills:
            if self.mode.after_a_trial:
                self._wait_for_a_trial()
            time.sleep(self._random.uniform(*self.mode.pause_s))
            self._keep_going()
            self._happen()
            print(f"{time.strftime('%H:%M:%S')} {dict(self.happened)}, {self._counts()}", flush=True)
        until(self._finished, "the search to end", timeout_s=1200)

    def _begun(self) -> bool:
        with contextlib.suppress(StudyNotFoundError):
            return bool(self._holders())
        return False

    def _wait_for_a_trial(self) -> None:
        assert self._launcher is not None
        launcher, used = self._launcher, self._used()
        until(lambda: launcher.poll() is not None or self._used() > used, "a trial to end", timeout_s=300)

    def _used(self) -> int:
        study = self.study()
        with contextlib.closing(study.backend):
            return Places.of(study).counts().used

    def _happen(self) -> None:
        name = "kill"
        drawn = self._random.random()
        for other, share in self.mode.others.items():
            drawn -= share / (1 + sum(self.mode.others.values()))
            if drawn < 0:
                name = other
                break
        self.happened[name] += self._disasters[name]()

    def _stop(self) -> bool:
        """Longer than its lease; when it wakes up, somebody else may have its place."""
        victim = self._signal(signal.SIGSTOP)
        if victim is None:
            return False

        def wake() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGCONT)

        threading.Timer(STOPPED_S, wake).start()
        return True

    def _kill_launcher(self) -> bool:
        """Its workers live on; the next launcher starts two more."""
        assert self._launcher is not None
        if self._launcher.poll() is not None:
            return False
        self._launcher.kill()
        self._launcher.wait()
        return True

    def _let_database_rest(self) -> bool:
        self._outage()
        return True

    def _recover_twice(self) -> bool:
        """Two at the same moment, beside those of the launcher and the workers."""
        command = ["doctor", "chaos", "--repair"]
        both = [self._commands.start(command, f"doctor-{self.happened['recoveries']}-{number}") for number in range(2)]
        threading.Thread(target=lambda: [one.wait() for one in both]).start()
        return True

    def _signal(self, number: signal.Signals) -> psutil.Process | None:
        """Send it to a worker chosen at random; None if there is none."""
        victims = workers()
        if self._random.random() < self.mode.in_training:
            holders = self._holders()
            victims = [one for one in victims if one.pid in holders]
        if not victims:
            return None
        victim = self._random.choice(victims)
        try:
            victim.send_signal(number)
        except psutil.NoSuchProcess:
            return None
        return victim

    def _kill_at_the_end(self) -> bool:
        """Where a trial may end: the pruner may stop it after any report, and one epoch follows the last but one."""
        study = self.study()
        with contextlib.closing(study.backend):
            reports = self._random.randrange(1, study.spec.training.epochs)
            deadline = time.monotonic() + 5.0
            while time.monotonic() < deadline:
                for row in Places.of(study).held():
                    if _reports(study, row.trial) >= reports:
                        time.sleep(self._random.uniform(0.0, 2 * END_S))
                        return _killed(row.pid)
        return False

    def _holders(self) -> set[int]:
        study = self.study()
        with contextlib.closing(study.backend):
            return {row.pid for row in Places.of(study).held()}

    def _keep_going(self) -> None:
        """Start the launcher again when it has ended: its user would, or the service manager."""
        assert self._launcher is not None
        if self._launcher.poll() is not None:
            study = self.study()
            counts = Places.of(study).counts()
            if counts.used == counts.total:
                self._places = counts.total + self.mode.more_places
            self._look_at_its_end(study)
            study.backend.close()
            self._launch("--trials", str(self._places))

    def _look_at_its_end(self, study: StoredStudy) -> None:
        """Of a launch that ended by itself, and before anybody mends anything."""
        assert self._launcher is not None
        if self._launcher.returncode == 0:
            self.halves += halves(study)

    def _launch(self, *options: str) -> None:
        command = ["launch", str(self.mode.study), "--workers", "2", *options, "--lease-s", str(LEASE_S)]
        self._places = self._places or load(str(self.mode.study)).trials
        self._launcher = self._commands.start(command, "launch")

    def _finished(self) -> bool:
        assert self._launcher is not None
        code = self._launcher.poll()
        if code not in (None, 0):
            self._launch("--trials", str(self._places))
        if code == 0:
            study = self.study()
            with contextlib.closing(study.backend):
                self._look_at_its_end(study)
        return code == 0

    def study(self) -> StoredStudy:
        backend = open_backend(self.url, create=False)
        try:
            return load_study(backend, "chaos")
        except StudyNotFoundError:
            backend.close()
            raise

    def _counts(self) -> str:
        try:
            study = self.study()
        except Exception as error:  # the database is being started
            return type(error).__name__
        with contextlib.closing(study.backend):
            counts = Places.of(study).counts()
            return f"{counts.used} of {counts.total} places used"

    def end(self) -> None:
        """Leave no process behind, whatever happened."""
        for process in workers():
            process.kill()
        if self._launcher is not None and self._launcher.poll() is None:
            self._launcher.kill()


def _reports(study: StoredStudy, trial: int) -> int:
    """How many epochs a trial has reported. Optuna would read every trial first: the next would have ended by then."""
    query = text("SELECT count(*) FROM trial_intermediate_values JOIN trials USING (trial_id) WHERE number = :trial")
    return int(study.backend.transaction(lambda connection: connection.execute(query, {"trial": trial}).scalar_one()))


def _killed(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


@contextlib.contextmanager
def sqlite_database(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A file, and an outage of it: another program holds its lock."""
    path = folder / "chaos.db"

    def outage() -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(OUTAGE_S)
            other.execute("ROLLBACK")

    yield f"sqlite:///{path}", outage


@contextlib.contextmanager
def postgresql_database(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A server of our own, and an outage of it: it is stopped, and started again."""
    with restartable_server() as server:
        yield server.server.url("postgres"), lambda: _stop_and_start(server)


def _stop_and_start(server: Restartable) -> None:
    server.stop()
    time.sleep(OUTAGE_S)
    server.start()


DATABASES = {"sqlite": sqlite_database, "postgresql": postgresql_database}


def line(mode: str, database: str, chaos: Chaos, found: Audit, seconds: float) -> str:
    """A row of the table."""
    happened = chaos.happened
    cells = [
        mode,
        database,
        *(happened[name] for name in ("kill", "stop", "preempt", "launcher", "outage")),
        found.places,
        found.pruned,
        found.attempts,
        found.resumed,
        found.lost,
        found.duplicated,
        len(chaos.halves),
        f"{found.twice} of {found.trained}",
        f"{found.retrained} of {found.places}",
        f"{seconds / 60:.1f}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def _searched(asked: argparse.Namespace, folder: Path, address: str) -> tuple[str, str, list[str]]:
    """A search; returns the table's header, its row and what is wrong."""
    began = time.monotonic()
    with DATABASES[asked.database](folder) as (url, outage):
        open_backend(url, create=True).close()
        chaos = Chaos(url, folder, outage, asked.seed, MODES[asked.mode], address)
        try:
            chaos.run(asked.kills)
            found = audit(chaos.study())
        finally:
            chaos.end()
    wrong = [*found.wrong, *(f"at a launch's end {half}" for half in chaos.halves)]
    return HEADER, line(asked.mode, asked.database, chaos, found, time.monotonic() - began), wrong


def _compared(asked: argparse.Namespace, folder: Path, address: str) -> tuple[str, str, list[str]]:
    """A comparison in peace, then the same under kills; returns as `_searched` does."""
    peace = folder / "peace"
    peace.mkdir()
    began = time.monotonic()
    with _comparison(asked.database, peace, address, asked.seed, 0) as (_, comparison):
        undisturbed = told_by(comparison)
        wrong = audit_comparison(comparison, undisturbed).wrong
    print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    with _comparison(asked.database, folder, address, asked.seed, asked.kills) as (compared, comparison):
        found = audit_comparison(comparison, undisturbed)
        row = chaos_comparison.row(asked.database, compared, found, time.monotonic() - began)
    return chaos_comparison.HEADER, row, [*(f"undisturbed: {each}" for each in wrong), *found.wrong]


@contextlib.contextmanager
def _comparison(
    database: str, folder: Path, address: str, seed: int, kills: int
) -> Iterator[tuple[Compared, StoredComparison]]:
    """One that has ended after so many kills, as it is stored."""
    with DATABASES[database](folder) as (url, _):
        open_backend(url, create=True).close()
        compared = Compared(url, folder, seed, address)
        try:
            compared.run(kills)
        finally:
            compared.end()
        with compared.comparison() as comparison:
            assert comparison is not None
            yield compared, comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=[*MODES, "compare"])
    parser.add_argument("database", choices=DATABASES)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    # Two cores for two workers, so that each has one thread, and its sums one order, on any machine.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    run = _compared if asked.mode == "compare" else _searched
    with tempfile.TemporaryDirectory(prefix="affinity-search-chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with warm_process(TRAINING) as address:
            try:
                header, row, wrong = run(asked, folder, address)
            except BaseException:
                for log in folder.rglob("*.log"):
                    print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
                raise
    print(f"\n{header}\n|{'---|' * (header.count('|') - 1)}\n{row}")
    for each in wrong:
        print(f"wrong: {each}", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
