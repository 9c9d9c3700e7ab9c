"""The same whole job, side by side: ours, plain Optuna, KerasTuner and Ray Tune, one after the other.

    make race DATA=DIR

Everybody searches λ, σ and m of the affinity loss with two workers of one thread: the same images and division, the
same network layer by layer, as many trials, epochs and batches, the same optimiser and learning rates, float32, no
pruning, macro F1 after every epoch. The rivals' scripts are in `rivals/`; they take our head and loss as Keras layers,
because λ, σ and m, which everybody is to search, exist there alone. Without DATA the half with CIFAR-10 is left out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks.commands import machine
from benchmarks.race.contenders import ALL, Contender
from benchmarks.race.job import CIFAR10, DIGITS, Job
from benchmarks.race.measure import FailedError, Measured, adopt_orphans, run
from benchmarks.race.table import HEAD, lines_of, rows, verdict

JIT = {"auto": "auto", "yes": True, "no": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rounds", type=int, default=2, help="in every second one the order is the other way round")
    parser.add_argument("--only", nargs="*", choices=[each.name for each in ALL], default=[each.name for each in ALL])
    parser.add_argument(
        "--jobs", nargs="*", choices=[DIGITS.study, CIFAR10.study], default=[DIGITS.study, CIFAR10.study]
    )
    parser.add_argument("--trials", type=int, help="instead of the jobs' own, to try it out")
    parser.add_argument("--set", dest="more", action="append", default=[], help="of the study, to try it out")
    parser.add_argument("--jit-compile", choices=JIT, default="no", help="of the rivals' networks; Keras' own is auto")
    asked = parser.parse_args()
    adopt_orphans()
    contenders = [each for each in ALL if each.name in asked.only]
    table, verdicts = [HEAD, "|---|---|---|---|---|---|---|---|"], []
    for job in (DIGITS, CIFAR10):
        if job.study not in asked.jobs or (job.needs_data and not asked.data_dir):
            continue
        job = replace(job, trials=asked.trials or job.trials, more=(*job.more, *asked.more))
        runs = race(job, contenders, asked)
        lines = {each.name: written(each, job, asked.data_dir) for each in contenders}
        table += rows(job.title, runs, lines)
        verdicts += [verdict(job.title, runs)] if len(runs) > 1 else []
    versions = ", ".join(f"{name} {version(name)}" for name in ("keras-tuner", "ray"))
    print("\n".join([*table, "", *verdicts, "", f"{machine()}, {versions}; {date.today()}."]))


def race(job: Job, contenders: list[Contender], asked: argparse.Namespace) -> dict[str, list[Measured]]:
    """All rounds of one job."""
    runs: dict[str, list[Measured]] = {each.name: [] for each in contenders}
    data_dir = asked.data_dir.resolve() if asked.data_dir and job.needs_data else None
    for number in range(asked.rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            with tempfile.TemporaryDirectory(prefix="race-") as folder:
                job.prepare(Path(folder), data_dir, JIT[asked.jit_compile])
                try:
                    found = run(contender, job, Path(folder), data_dir)
                except FailedError as error:
                    sys.exit(f"error: {contender.name}, {job.title}: {error}")
            runs[contender.name].append(found)
            print(f"{job.title}, round {number + 1}, {contender.name}: {found}", file=sys.stderr, flush=True)
    return runs


def written(contender: Contender, job: Job, data_dir: Path | None) -> int:
    """Lines of the user's files, and those that they type."""
    return sum(map(lines_of, contender.files)) + len(contender.typed(job, data_dir))


if __name__ == "__main__":
    main()
