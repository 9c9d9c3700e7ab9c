"""`make plan-table`: what `plan` says of a launch, and how long that launch takes then, one after the other."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-P", "-m", "affinity_search")


@dataclass(frozen=True)
class Case:
    """A launch. `needs` is the file or folder below --data-dir that it reads."""

    name: str
    command: str  # launch or compare
    options: tuple[str, ...]
    needs: str | None = None


SMALL = ("--set", "network.widths=[8,16]", "--set", "training.epochs=6", "--set", "pruner.min_resource=2")
FOLDS = ("--set", "data.validation={folds=5}", "--set", "pruner.kind=none")
HEADS = ("--heads", "softmax,affinity")
TWO = ("--workers", "2")
CASES = (
    Case("digits, 1 worker", "launch", ("digits", "--trials", "24", "--workers", "1")),
    Case("digits, 2 workers", "launch", ("digits", "--trials", "60", *TWO)),
    Case("digits, 5 folds, no pruner", "launch", ("digits", "--trials", "12", *TWO, *FOLDS)),
    Case("MNIST, n = 10", "launch", ("mnist", "--trials", "16", *TWO, *SMALL), "mnist.npz"),
    Case("digits, two heads", "compare", ("digits", *HEADS, "--trials", "8", "--draws", "3", *TWO)),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """A row for each case: the estimate, the truth, their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=None)
    asked = parser.parse_args(arguments)
    print("| launch | epochs, planned | epochs, trained | time, planned | time, real | planned / real |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        if case.needs and not (asked.data_dir and (asked.data_dir / case.needs).exists()):
            print(f"| {case.name} | left out: no {case.needs} in --data-dir | | | | |")
            continue
        data = ("--data-dir", str(asked.data_dir)) if case.needs else ()
        with tempfile.TemporaryDirectory() as folder:
            print(row(case, (*case.options, *data, "--storage", f"sqlite:///{folder}/plan.db")), flush=True)


def row(case: Case, options: Sequence[str]) -> str:
    """Plan, then launch."""
    planned = json.loads(_said("plan" if case.command == "launch" else "compare", *options, "--json", *_dry(case)))
    began = time.monotonic()
    _said(case.command, *options)
    took = time.monotonic() - began
    trained = _epochs(case, options)
    told = planned["seconds"]
    cells = (
        case.name,
        str(planned["expected_epochs"]),
        str(trained),
        f"{told:.0f} s",
        f"{took:.0f} s",
        f"{told / took:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _dry(case: Case) -> tuple[str, ...]:
    return ("--dry-run",) if case.command == "compare" else ()


def _said(*command: str) -> str:
    return subprocess.run(
        [*COMMAND, *command], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout


def _epochs(case: Case, options: Sequence[str]) -> int:
    """As the studies' trials tell it."""
    storage = options[options.index("--storage") :]
    names = [one["study"] for one in json.loads(_said("status", "--json", *storage))]
    return sum(trial["epochs"] for name in names for trial in json.loads(_said("trials", name, "--json", *storage)))


if __name__ == "__main__":
    main()
