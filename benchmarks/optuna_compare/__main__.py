"""What users of distributed Optuna complain about: plain `study.optimize` and affinity-search, measured side by side.

    make optuna-compare

Real worker processes, a real PostgreSQL and SQLite files; the training alone is arithmetic with short waits. Plain
Optuna is set up as its documentation recommends (see plain.py). Ends with a table in Markdown. Of single runs: the
races come out a little different each time.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from postgres_server import Server, Unavailable, postgres_server

from optuna_compare import cases_budget, cases_deaths, cases_outages
from optuna_compare.lab import OURS, PLAIN, Outcome, Room
from optuna_compare.table import MARKS, Case, Row, foot, markdown, measure

ALL: Sequence[Case] = (*cases_budget.CASES, *cases_deaths.CASES, *cases_outages.CASES)
# Mostly waiting, with next to no work: run beside the others, both sides at once.
WAITING = (cases_deaths.IN_ASK, *cases_outages.CASES)
LANES = 2  # of those


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="run the cases whose title contains it")
    only = parser.parse_args().only.lower()
    cases = [case for case in ALL if only in f"{case.title} {case.database}".lower()]
    since = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="optuna-compare-") as folder, _server() as server:
        rows = run(cases, Path(folder), server)
        print(f"\n{markdown(rows)}\n\n{MARKS[True]} as wanted, {MARKS[False]} not. ", end="")
        print(foot(server, time.monotonic() - since))


def run(cases: Sequence[Case], folder: Path, server: Server | Unavailable) -> list[Row]:
    """Each side of each case in a folder of its own: one after the other, but for those that only wait."""

    def both(case: Case) -> list[Outcome]:
        number = cases.index(case)
        rooms = [Room(side, folder / f"{number}-{side.name.replace(' ', '-')}", server) for side in (PLAIN, OURS)]
        with ThreadPoolExecutor(2 if case in WAITING else 1) as lanes:
            return list(lanes.map(lambda room: measure(case, room, say), rooms))

    with ThreadPoolExecutor(1) as alone, ThreadPoolExecutor(LANES) as beside:
        measured = [(beside if case in WAITING else alone).submit(both, case) for case in cases]
        return [Row(case, outcomes.result()) for case, outcomes in zip(cases, measured, strict=True)]


@contextlib.contextmanager
def _server() -> Iterator[Server | Unavailable]:
    """PostgreSQL, or the reason why its cases cannot be run."""
    with contextlib.ExitStack() as stack:
        try:
            server: Server | Unavailable = stack.enter_context(postgres_server())
        except Unavailable as reason:
            server = reason
        yield server


def say(message: str) -> None:
    """Progress; the table alone goes to standard output."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
