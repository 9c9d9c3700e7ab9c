"""The scale of the comparison, and what one case asks of both sides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STUDY = "tiny"  # of tests/tiny.toml; plain Optuna's study has the same name and the same space

WORKERS = 4
WANTED = 20  # trials of a budget
CROWD = 8  # processes that do the same thing at the same moment
OPENING_ROUNDS = 3
QUEUED = 120
STALE = 20
RECOVERY_ROUNDS = 2
GRACE_S = 4  # plain Optuna's grace period and our lease, where the case is about dead workers
CROWD_GRACE_S = 8  # of many workers on one SQLite file, whose heartbeats wait for each other
ORPHAN_GRACE_S = 30
ORPHAN_LIMIT_S = 240.0  # what is RUNNING for so long after its worker's death counts as RUNNING for ever
STOPPED_S = 10.0  # SIGSTOP: twice the grace period and more
OUTAGE_S = 20.0
RESTART_S = 3.0
LOCKED_S = 8.0
PATIENCE_S = 300.0  # a worker that has not ended by then hangs


@dataclass(frozen=True)
class Conditions:
    """One study and its workers. Both sides obey the upper part; how plain Optuna is set up stands below it."""

    url: str
    trials: int = WANTED
    epochs: int = 10  # reports of a trial
    epoch_s: float = 0.03
    grace_s: int | None = None  # None: plain Optuna without heartbeat, our usual lease
    seed: int | None = None
    gate: Path | None = None  # after its first report every trial waits until this file exists
    runs: Path | None = None  # gets a line for every training that begins
    dies_in_ask: bool = False

    n_trials: int | None = None  # of each `study.optimize`
    counted_states: tuple[str, ...] | None = ("COMPLETE",)  # by MaxTrialsCallback; None: no such callback
    documented_timeout: bool = True  # SQLite's, as Optuna's FAQ sets it; else the driver's default

    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")
