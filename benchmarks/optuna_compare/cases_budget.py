"""How many trials are trained, and which: budgets, seeds, queues, and the first opening of a database."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from optuna.trial import TrialState

from optuna_compare.conditions import CROWD, GRACE_S, OPENING_ROUNDS, QUEUED, WANTED, WORKERS, Conditions
from optuna_compare.lab import POSTGRESQL, SQLITE, Crew, Outcome, Room, complete
from optuna_compare.processes import deaths, start_together
from optuna_compare.table import Case

SHARE = WANTED // WORKERS
BOTH_STATES = ("COMPLETE", "RUNNING")


def _wanted(crew: Crew, more: str = "") -> Outcome:
    finished = len(complete(crew.trials()))
    return Outcome(finished == WANTED, f"{finished} of {WANTED} trials{more}")


def budget(room: Room, **conditions: Any) -> Outcome:
    with room.crew(room.study(POSTGRESQL, **conditions)) as crew:
        crew.start(WORKERS)
        crew.wait()
        return _wanted(crew)


def restarted_halfway(room: Room) -> Outcome:
    """As by a reboot, or a cluster's time limit."""
    with room.crew(room.study(POSTGRESQL, n_trials=SHARE, counted_states=None, grace_s=GRACE_S)) as crew:
        crew.start(WORKERS)
        crew.when(lambda trials: len(complete(trials)) >= WANTED // 2, "half of the trials")
        for worker in crew.workers:
            worker.send(signal.SIGTERM)
        crew.wait()
        crew.start(WORKERS)
        crew.wait()
        left = crew.left()
        return _wanted(crew, f", {left}" if left else "")


def restarted_at_the_end(room: Room) -> Outcome:
    with room.crew(room.study(POSTGRESQL, counted_states=BOTH_STATES)) as crew:
        for _ in range(2):
            crew.start(WORKERS)
            crew.wait()
        return _wanted(crew)


def same_seed(room: Room) -> Outcome:
    with room.crew(room.study(POSTGRESQL, seed=0)) as crew:
        crew.start(WORKERS)
        crew.wait()
        points = [tuple(sorted(trial.params.items())) for trial in complete(crew.trials())]
    different = len(set(points))
    return Outcome(different == len(points), f"{different} different points in {len(points)} trials")


def opened_together(database: str, room: Room) -> Outcome:
    opened = []
    for _ in range(OPENING_ROUNDS):
        url = room.url(database)
        opened += start_together(room.side.open_fresh, [(Conditions(url),)] * CROWD, room.folder)
        for process in opened:
            process.ended()
    died, text = deaths(opened, "processes")
    return Outcome(died == 0, text)


def queue(database: str, room: Room) -> Outcome:
    """Trials that wait, and workers that all want one at the same moment."""
    runs = room.folder / "runs.txt"
    made = Conditions(
        room.url(database),
        trials=QUEUED,
        epochs=5,
        epoch_s=0.0,
        runs=runs,
        n_trials=QUEUED // CROWD,
        counted_states=None,
    )
    room.side.create_queued(made)
    workers = start_together(room.side.work, [(made, str(number)) for number in range(CROWD)], room.folder)
    died, text = deaths(workers)
    with room.crew(made) as crew:
        trials = crew.trials()
    twice = sum(count > 1 for count in Counter(runs.read_text().split()).values())
    finished = len(complete(trials))
    waiting = sum(trial.state == TrialState.WAITING for trial in trials)
    parts = [f"{twice} of {QUEUED} trained more than once", f"{finished} finished"]
    parts += [f"{waiting} still WAITING"] * bool(waiting) + [text] * bool(died)
    return Outcome(twice == 0 and finished == QUEUED and not died, ", ".join(parts))


WANT = f"{WANTED} trials wanted of {WORKERS} workers"
COUNTING_BOTH = f"`MaxTrialsCallback({WANTED}, states=(COMPLETE, RUNNING))`"
CASES: Sequence[Case] = (
    Case(f"{WANT}: `n_trials={WANTED}`", POSTGRESQL, partial(budget, n_trials=WANTED, counted_states=None)),
    Case(f"{WANT}: `n_trials={SHARE}` each", POSTGRESQL, partial(budget, n_trials=SHARE, counted_states=None)),
    Case(
        f"{WANT}: `n_trials={SHARE}` each, all stopped by SIGTERM halfway and started again",
        POSTGRESQL,
        restarted_halfway,
    ),
    Case(f"{WANT}: `MaxTrialsCallback({WANTED})`", POSTGRESQL, budget),
    Case(f"{WANT}: {COUNTING_BOTH}", POSTGRESQL, partial(budget, counted_states=BOTH_STATES)),
    Case(f"{WANT}: {COUNTING_BOTH}, all started again at the end", POSTGRESQL, restarted_at_the_end),
    Case(f"{WORKERS} workers with the same sampler seed train different points", POSTGRESQL, same_seed),
    *(
        Case(
            f"{CROWD} processes open a fresh database together ({OPENING_ROUNDS} times): nobody dies",
            database,
            partial(opened_together, database),
        )
        for database in (SQLITE, POSTGRESQL)
    ),
    *(
        Case(
            f"{QUEUED} queued trials, {CROWD} workers: each is trained exactly once",
            database,
            partial(queue, database),
        )
        for database in (SQLITE, POSTGRESQL)
    ),
)
