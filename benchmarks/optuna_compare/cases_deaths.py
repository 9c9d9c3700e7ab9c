"""What becomes of the trial whose worker was killed, preempted or frozen."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from affinity_search.storage.trials.facts import TrialFacts
from optuna_compare.conditions import (
    CROWD,
    CROWD_GRACE_S,
    GRACE_S,
    ORPHAN_GRACE_S,
    ORPHAN_LIMIT_S,
    RECOVERY_ROUNDS,
    STALE,
    STOPPED_S,
    WORKERS,
    Conditions,
)
from optuna_compare.lab import POSTGRESQL, SQLITE, Crew, Outcome, Room, begun, complete, read_trials, times
from optuna_compare.processes import deaths, start_together
from optuna_compare.table import Case

LOOK_EVERY_S = 1.0


def _again(crew: Crew, victim: FrozenTrial) -> list[FrozenTrial]:
    """The finished trials of the victim's parameters."""
    return [trial for trial in complete(crew.trials()) if trial.params == victim.params]


def killed(room: Room) -> Outcome:
    """The others have work for twice the grace period, so they are still there to notice."""
    with room.crew(room.study(POSTGRESQL, trials=24, epoch_s=0.12, grace_s=GRACE_S)) as crew:
        crew.start(WORKERS)
        victim = crew.when(lambda trials: begun(trials, reports=3), "a trial in its middle")[0]
        crew.workers[int(TrialFacts.of(victim).worker or 0)].send(signal.SIGKILL)
        crew.wait()
        left, again = crew.left(), len(_again(crew, victim))
    text = f"{left or 'nothing'} left, its parameters trained again {times(again)}"
    return Outcome(not left and again == 1, text)


def killed_in_ask(room: Room) -> Outcome:
    """A second worker goes on asking for trials all the time."""
    made = room.study(POSTGRESQL, trials=10_000, epoch_s=0.3, grace_s=ORPHAN_GRACE_S)
    with room.crew(made) as crew:
        crew.start(1, dies_in_ask=True)
        crew.wait()
        if not crew.trials():
            return Outcome(True, "it does not exist yet: a trial is stored with its parameters, whole")
        orphan = crew.trials()[0].number
        crew.start(1)
        since = time.monotonic()
        while crew.trials()[orphan].state == TrialState.RUNNING:
            if time.monotonic() - since > ORPHAN_LIMIT_S:
                return Outcome(False, f"still RUNNING after {ORPHAN_LIMIT_S:.0f} s")
            time.sleep(LOOK_EVERY_S)
        return Outcome(True, f"closed after {time.monotonic() - since:.0f} s")


def terminated(room: Room) -> Outcome:
    """As a cluster preempts."""
    gate = room.folder / "gate"
    with room.crew(room.study(POSTGRESQL, epoch_s=0.06, grace_s=GRACE_S)) as crew:
        (worker,) = crew.start(1, gate=gate)
        victim = crew.when(begun, "a trial at the gate")[0]
        worker.send(signal.SIGTERM)
        code, since = worker.ended(), datetime.now()
        left = crew.left()
        crew.start(1)
        crew.wait()
        again = _again(crew, victim)
    parts = [f"exit code {code}", f"{left or 'nothing'} left behind", f"trained again {times(len(again))}"]
    if again and again[0].datetime_complete is not None:
        parts[-1] += f", {(again[0].datetime_complete - since).total_seconds():.0f} s later"
    return Outcome(not left and len(again) == 1, ", ".join(parts))


def frozen(room: Room) -> Outcome:
    """As by a suspended laptop, or a machine that swaps."""
    gate = room.folder / "gate"
    with room.crew(room.study(POSTGRESQL, trials=24, epoch_s=0.06, grace_s=GRACE_S)) as crew:
        (sleeper,) = crew.start(1, gate=gate)
        victim = crew.when(begun, "a trial at the gate")[0]
        sleeper.send(signal.SIGSTOP)
        crew.start(1)
        time.sleep(STOPPED_S)
        sleeper.send(signal.SIGCONT)
        gate.touch()
        crew.wait()
        died, text = deaths([sleeper], "sleepers")
        left, counted = crew.left(), len(_again(crew, victim))
    text = f"its worker died ({text.partition('(')[2]}" if died else "its worker went on"
    parts = [text, f"the result counted {times(counted)}", *([f"{left} left"] * bool(left))]
    return Outcome(not died and counted == 1 and not left, ", ".join(parts))


def recovered_together(room: Room) -> Outcome:
    """As when a cluster comes back: everything is stale, and everybody looks at once."""
    made = room.study(SQLITE, trials=STALE, grace_s=CROWD_GRACE_S, gate=room.folder / "gate")
    with room.crew(made) as crew:
        crew.start(STALE)
        crew.when(lambda trials: len(begun(trials)) == STALE, f"{STALE} trials at the gate")
    time.sleep(CROWD_GRACE_S + 1)
    rounds = [_recover(room, replace(made, url=room.copy(made.url))) for _ in range(RECOVERY_ROUNDS)]
    retries = ", ".join(str(count) for count, _ in rounds)
    trouble = sorted({text for _, text in rounds if text})
    return Outcome(
        all(count == STALE for count, _ in rounds) and not trouble, "; ".join([f"{retries} retries", *trouble])
    )


def _recover(room: Room, made: Conditions) -> tuple[int, str]:
    """How many retries there are in the end, and what is wrong beside their number."""
    recoveries = start_together(room.side.recover, [(made,)] * CROWD, room.folder)
    died, text = deaths(recoveries, "recoveries")
    trials = read_trials(made)
    left = room.side.left(made, trials)
    return room.side.retries(made, trials), ", ".join([*left, *([text] * bool(died))])


IN_ASK = Case(
    "A worker is killed (SIGKILL) between `ask` and the first heartbeat: its trial does not stay RUNNING",
    POSTGRESQL,
    killed_in_ask,
)
CASES: Sequence[Case] = (
    Case(
        "A worker is killed (SIGKILL) in the middle of a trial: nothing stays RUNNING, the work is done again once",
        POSTGRESQL,
        killed,
    ),
    IN_ASK,
    Case(
        "A worker is preempted (SIGTERM): nothing is RUNNING once it has ended, the work is done again once",
        POSTGRESQL,
        terminated,
    ),
    Case(
        f"A worker is frozen (SIGSTOP) for {STOPPED_S:.0f} s, then goes on: it lives, its result counts once",
        POSTGRESQL,
        frozen,
    ),
    Case(
        f"{CROWD} processes recover {STALE} stale trials at once ({RECOVERY_ROUNDS} times): {STALE} retries",
        SQLITE,
        recovered_together,
    ),
)
