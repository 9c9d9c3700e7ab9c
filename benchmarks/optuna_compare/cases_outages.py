"""The database goes away, or somebody else locks it, while trials report."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from optuna.trial import TrialState
from postgres_server import Restartable, restartable_server

from optuna_compare.conditions import LOCKED_S, OUTAGE_S, RESTART_S, WORKERS, Conditions
from optuna_compare.lab import POSTGRESQL, SQLITE, Outcome, Room, begun, complete, driver_url
from optuna_compare.processes import deaths, start
from optuna_compare.table import Case

REPORTS = 12


def outage(outage_s: float, room: Room, *, between_reports: bool = False) -> Outcome:
    """The first trials wait at a gate after their first report; it opens while the server is away, or afterwards."""
    with restartable_server() as own:
        gate = room.folder / "gate"
        made = Conditions(
            driver_url(own.server, "postgres"), trials=2 * WORKERS, epochs=REPORTS, epoch_s=0.2, gate=gate
        )
        room.side.create(made)
        with room.crew(made) as crew:
            crew.start(WORKERS)
            crew.when(lambda trials: len(begun(trials)) == WORKERS, "every worker's first trial to wait")
            first = [trial.number for trial in begun(crew.trials())]
            _take_away(own, outage_s, gate, between_reports)
            died, text = deaths(crew.workers)
            trials = crew.trials()
    kept = sum(len(trial.intermediate_values) == REPORTS for trial in complete([trials[number] for number in first]))
    return Outcome(not died and kept == WORKERS, f"{text}, {kept} of {WORKERS} trials finished with all reports")


def _take_away(own: Restartable, outage_s: float, gate: Path, between_reports: bool) -> None:
    own.stop()
    if not between_reports:
        gate.touch()
    time.sleep(outage_s)
    own.start()
    gate.touch()


def locked(room: Room, *, documented_timeout: bool = True) -> Outcome:
    """As by a backup, or a person with a database browser."""
    made = room.study(SQLITE, trials=3 * WORKERS, epoch_s=0.1, documented_timeout=documented_timeout)
    with room.crew(made) as crew:
        crew.start(WORKERS)
        crew.when(lambda trials: len(begun(trials)) >= WORKERS, "every worker to train")
        other = start(hold_lock, (Path(made.url.removeprefix("sqlite:///")),), room.folder / "other.log")
        assert other.ended() == 0, f"the lock could not be had: {other.last_words()}"
        died, text = deaths(crew.workers)
        failed = sum(trial.state == TrialState.FAIL for trial in crew.trials())
        finished, left = len(complete(crew.trials())), crew.left()
    parts = [text, f"{failed} trials failed", f"{finished} finished", *([f"{left} left"] * bool(left))]
    return Outcome(not (died or failed or left) and finished >= made.trials, ", ".join(parts))


def hold_lock(path: Path) -> None:
    """The other program."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=60.0)
    connection.execute("BEGIN EXCLUSIVE")
    time.sleep(LOCKED_S)
    connection.execute("COMMIT")
    connection.close()


LOCK = f"Another program locks the database for {LOCKED_S:.0f} s: nobody dies, no trial fails"
AWAY = "nobody dies, no report is lost"
CASES: Sequence[Case] = (
    Case(f"The server is away for {OUTAGE_S:.0f} s: {AWAY}", POSTGRESQL, partial(outage, OUTAGE_S)),
    Case(
        f"The server restarts ({RESTART_S:.0f} s) while trials report: {AWAY}", POSTGRESQL, partial(outage, RESTART_S)
    ),
    Case(
        f"The server restarts ({RESTART_S:.0f} s) between two reports: {AWAY}",
        POSTGRESQL,
        partial(outage, RESTART_S, between_reports=True),
    ),
    Case(f"{LOCK} (time-out of 20 s, as Optuna's FAQ has it)", SQLITE, locked),
    Case(f"{LOCK} (both at their defaults)", SQLITE, partial(locked, documented_timeout=False)),
)
