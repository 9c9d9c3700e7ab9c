"""`make folds-table`: with the same number of trainings, are many settings on one holdout better, or fewer on several?

A study in which every trial has K folds is recorded once: `record` launches it, and trains all its settings on fresh
draws, which say how good they really are. `choose` then plays searches from that record: it draws settings at random
and chooses the best one, either by one fold of each of B settings, or by the mean of k folds of each of B / k.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.results.final_runs import FinalRuns
from affinity_search.storage.study import StoredStudy, load_study

NAME = "folds"
TRIALS, FOLDS, DRAWS = 40, 5, 4
STUDY = (
    *("mnist", "--name", NAME, "--trials", str(TRIALS), "--set", f"data.validation={{folds={FOLDS}}}"),
    *("--set", "data.minority=10", "--set", "training.epochs=6", "--set", "network.widths=[8,16]"),
    *("--set", "pruner.kind=none", "--set", "sampler.kind=random", "--set", "training.precision=float32"),
    *("--set", "training.learning_rate=none", "--set", "space.learning_rate={low=0.0005,high=0.01,log=true}"),
)
PLAYED = 4000  # searches from one record
RESAMPLED = 400  # records, for the interval
BUDGETS = (10, 20, 40)  # trainings


@dataclass(frozen=True)
class Record:
    """Of S settings: `validation` (S, K), macro F1 of each fold's best epoch, and `test` (S,), the mean over draws."""

    validation: NDArray[np.float64]
    test: NDArray[np.float64]

    def of(self, chosen: NDArray[np.int64]) -> Record:
        """That of some of the settings."""
        return Record(self.validation[chosen], self.test[chosen])


def read(study: StoredStudy) -> Record:
    """From the trials' running means, and from the final runs."""
    epochs, runs = study.spec.training.epochs, study.spec.data.runs
    truth = FinalRuns.of(study).scores
    validation, test = [], []
    for trial in study.optuna.get_trials(deepcopy=False):
        values, scores = trial.intermediate_values, truth.get(trial.number, {})
        if len(values) < epochs * runs or not scores:
            continue
        sums = [(run + 1) * (1 - values[(run + 1) * epochs - 1]) for run in range(runs)]
        validation.append(np.diff([0.0, *sums]))
        test.append(np.mean([told[study.spec.metric] for draw, told in scores.items() if draw <= DRAWS]))
    return Record(np.array(validation), np.array(test))


def play(record: Record, trainings: int, folds: int, times: int, rng: np.random.Generator) -> float:
    """The mean test score of what such searches choose, each of as many settings as its trainings allow."""
    settings, count = len(record.test), trainings // folds
    found = 0.0
    for _ in range(times):
        tried = rng.permutation(settings)[:count]
        used = rng.permutation(record.validation.shape[1])[:folds]
        means = record.validation[np.ix_(tried, used)].mean(axis=1)
        found += float(record.test[tried[means.argmax()]])
    return found / times


def table(record: Record, seed: int = 0) -> Iterator[str]:
    """A row for each budget and number of folds; the interval resamples the settings."""
    rng = np.random.default_rng(seed)
    most = record.validation.shape[1]
    yield f"{len(record.test)} settings, test macro F1 {100 * record.test.min():.1f} to {100 * record.test.max():.1f}"
    yield "| trainings | settings × folds | test macro F1 of the chosen | − one holdout | 95 % interval |"
    yield "|---|---|---|---|---|"
    for budget in (each for each in BUDGETS if each <= len(record.test)):
        one = play(record, budget, 1, PLAYED, rng)
        yield f"| {budget} | {budget} × 1 | {100 * one:.1f} | | |"
        for folds in (2, 3, most):
            several = play(record, budget, folds, PLAYED, rng)
            low, high = interval(record, budget, folds, rng)
            row = f"{100 * several:.1f} | {100 * (several - one):+.1f} | {100 * low:+.1f} to {100 * high:+.1f}"
            yield f"| {budget} | {budget // folds} × {folds} | {row} |".replace("-", "−")


def same_settings(record: Record, seed: int = 0) -> Iterator[str]:
    """A row for each number of settings: each on one fold, and each on all folds, which costs as many times more."""
    rng = np.random.default_rng(seed)
    most = record.validation.shape[1]
    yield f"| settings | one holdout | {most} folds of the same settings | difference | 95 % interval |"
    yield "|---|---|---|---|---|"
    for count in (each for each in BUDGETS if each <= len(record.test)):
        one, all_ = (play(record, count * folds, folds, PLAYED, rng) for folds in (1, most))
        low, high = interval(record, count * most, most, rng, count)
        row = f"{100 * one:.1f} | {100 * all_:.1f} | {100 * (all_ - one):+.1f} | {100 * low:+.1f} to {100 * high:+.1f}"
        yield f"| {count} | {row} |".replace("-", "−")


def interval(
    record: Record, budget: int, folds: int, rng: np.random.Generator, beside: int | None = None
) -> tuple[float, float]:
    """Of the difference to one holdout of `beside` trainings, over other settings of this space."""
    differences = []
    for _ in range(RESAMPLED):
        other = record.of(rng.integers(len(record.test), size=len(record.test)))
        times = PLAYED // 40
        differences.append(play(other, budget, folds, times, rng) - play(other, beside or budget, 1, times, rng))
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def record(storage: str, data_dir: Path | None) -> None:
    """Launch the study and its final runs; the same command goes on."""
    data = ["--data-dir", str(data_dir)] if data_dir else []
    command = [sys.executable, "-P", "-m", "affinity_search"]
    subprocess.run([*command, "launch", *STUDY, *data, "--storage", storage], check=True)
    options = ["--top", str(TRIALS), "--draws", str(DRAWS), "--yes"]
    subprocess.run([*command, "evaluate", NAME, *options, *data, "--storage", storage], check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Record if need be, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="sqlite:///folds.db")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--recorded", action="store_true", help="only read what was recorded")
    asked = parser.parse_args(arguments)
    if not asked.recorded:
        record(asked.storage, asked.data_dir)
    recorded = read(load_study(open_backend(asked.storage, create=False), NAME))
    for line in (*table(recorded), "", *same_settings(recorded)):
        print(line)


if __name__ == "__main__":
    main()
