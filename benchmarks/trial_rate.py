"""Trials per minute of the bundled digits study, and what a trial costs beside its training.

    make trial-rate
    python -m benchmarks.trial_rate --tree ../before  # the same launch by another checkout, side by side

`--tree` names a checkout of an earlier version. Its launch and this one take turns, so that both meet the same machine.
No trial is pruned, so that every version trains as many epochs. Rates are from the first trial's end to the last one's:
starting the workers is measured elsewhere.
"""

from __future__ import annotations

import argparse
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import machine

ROUNDS = 3
PLACES = 40
HERE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Rate:
    """Of one launch with two workers."""

    a_minute: float
    cpu_s: float  # of all its processes, for each trial, starts included


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, action="append", default=[], help="another checkout; repeatable")
    trees = [HERE, *(tree.resolve() for tree in parser.parse_args().tree)]
    rates: dict[Path, list[Rate]] = {tree: [] for tree in trees}
    for _ in range(ROUNDS):
        for tree in trees:
            rates[tree].append(measure(tree))
    print(f"| checkout | trials a minute, {ROUNDS} launches | processor seconds a trial |\n|---|---|---|")
    for tree, found in rates.items():
        each = ", ".join(f"{rate.a_minute:.0f}" for rate in found)
        print(f"| {tree.name} | {each} | {statistics.median(rate.cpu_s for rate in found):.2f} |")
    print(f"\ndigits, {PLACES} places, 2 workers, no pruner; {machine()}")


def measure(tree: Path) -> Rate:
    """One launch of the digits by the code in `tree`, into a new SQLite file."""
    with tempfile.TemporaryDirectory(prefix="trial-rate-") as folder:
        database = Path(folder) / "rate.db"
        module = "affinity_search" if (tree / "affinity_search").is_dir() else "search"  # until 0.1.0
        command = [sys.executable, "-m", module, "launch", "digits", "--workers", "2", "--trials", str(PLACES)]
        command += ["--set", "pruner={kind='none'}", "--storage", f"sqlite:///{database}"]
        before = _cpu_s()
        # The tree's own packages go before the installed ones.
        subprocess.run(command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, check=True, capture_output=True)
        cpu_s = (_cpu_s() - before) / PLACES
        with closing(sqlite3.connect(database)) as connection:
            query = "SELECT (count(*) - 1) * 60.0 / (max(finished_at) - min(finished_at)) FROM affinity_places"
            return Rate(float(connection.execute(query).fetchone()[0]), cpu_s)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
