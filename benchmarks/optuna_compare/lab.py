"""Where a case runs: one of the two sides, fresh databases of either kind, and a crew of worker processes."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from postgres_server import Server, Unavailable
from waiting import until

from optuna_compare import ours, plain
from optuna_compare.conditions import PATIENCE_S, STUDY, Conditions
from optuna_compare.processes import Started, start

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
LOOK_EVERY_S = 0.2
T = TypeVar("T")


@dataclass(frozen=True)
class Side:
    """One of the two that are compared, as functions of a case's conditions."""

    name: str
    create: Callable[[Conditions], None]
    create_queued: Callable[[Conditions], None]
    open_fresh: Callable[[Conditions], None]
    work: Callable[[Conditions, str], None]
    recover: Callable[[Conditions], None]
    left: Callable[[Conditions, list[FrozenTrial]], list[str]]
    retries: Callable[[Conditions, list[FrozenTrial]], int]


PLAIN = Side(
    "plain Optuna",
    plain.create,
    plain.create_queued,
    plain.open_fresh,
    plain.work,
    plain.recover,
    plain.left,
    plain.retries,
)
OURS = Side(
    "affinity-search",
    ours.create,
    ours.create,  # its queue are the places
    ours.open_fresh,
    ours.work,
    ours.recover,
    ours.left,
    ours.retries,
)


@dataclass(frozen=True)
class Outcome:
    """A cell of the table; `passed` is None for a case that could not be run."""

    passed: bool | None
    text: str


@dataclass
class Room:
    """A folder and fresh databases for one case on one side."""

    side: Side
    folder: Path
    server: Server | Unavailable
    _databases: int = 0

    def url(self, database: str) -> str:
        """Of a new, empty database."""
        if database == SQLITE:
            self._databases += 1
            return f"sqlite:///{self.folder / f'{self._databases}.db'}"
        if isinstance(self.server, Unavailable):
            raise self.server
        return driver_url(self.server, self.server.fresh_database())

    def copy(self, url: str) -> str:
        """Of a SQLite database that nobody uses."""
        made = self.url(SQLITE)
        with (
            contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as source,
            contextlib.closing(sqlite3.connect(made.removeprefix("sqlite:///"))) as target,
        ):
            source.backup(target)
        return made

    def study(self, database: str, **conditions: Any) -> Conditions:
        """A study in a fresh database."""
        made = Conditions(self.url(database), **conditions)
        self.side.create(made)
        return made

    def crew(self, conditions: Conditions) -> Crew:
        """Its workers, none of them started yet."""
        return Crew(self, conditions)


def driver_url(server: Server, database: str) -> str:
    """With the driver's name, so that both sides use the same one."""
    return server.url(database).replace("postgresql://", "postgresql+psycopg://", 1)


@dataclass
class Crew:
    """The workers of one study; whoever is alive at the end of the context is killed."""

    room: Room
    conditions: Conditions
    workers: list[Started] = field(default_factory=list)

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.kill()

    def start(self, count: int, **changes: Any) -> list[Started]:
        """More workers, perhaps under changed conditions; worker K is called K."""
        conditions = replace(self.conditions, **changes)
        first = len(self.workers)
        for number in range(first, first + count):
            log = self.room.folder / f"worker-{number}.log"
            self.workers.append(start(self.room.side.work, (conditions, str(number)), log))
        return self.workers[first:]

    def wait(self) -> None:
        """Until every worker has ended; those that hang are killed."""
        for worker in self.workers:
            worker.ended()

    def trials(self) -> list[FrozenTrial]:
        """As Optuna shows them; both sides keep them in Optuna's own tables."""
        return read_trials(self.conditions)

    def when(self, look: Callable[[list[FrozenTrial]], T], what: str) -> T:
        """Wait for the first true answer. Looking has its price on SQLite, where a reader holds writers up."""

        def look_again() -> T:
            time.sleep(LOOK_EVERY_S)
            for worker in self.workers:
                assert not worker.process.exitcode, f"a worker died while waiting for {what}: {worker.last_words()}"
            return look(self.trials())

        return until(look_again, what, PATIENCE_S)

    def left(self) -> str:
        """What still looks as if somebody worked on it; empty if nothing does."""
        return ", ".join(self.room.side.left(self.conditions, self.trials()))


def read_trials(conditions: Conditions) -> list[FrozenTrial]:
    engine: dict[str, Any] = {"connect_args": {"timeout": 60.0}} if conditions.is_sqlite() else {}
    storage = RDBStorage(conditions.url, engine_kwargs=engine, skip_table_creation=True)
    try:
        return optuna.load_study(study_name=STUDY, storage=storage).get_trials(deepcopy=False)
    finally:
        storage.engine.dispose()


def complete(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def begun(trials: Sequence[FrozenTrial], reports: int = 1) -> list[FrozenTrial]:
    """Those in the middle of their training."""
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    return [trial for trial in running if len(trial.intermediate_values) >= reports]


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
