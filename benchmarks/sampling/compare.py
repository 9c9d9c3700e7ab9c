"""How many epochs samplers and pruners need to find good parameters, replayed from the recorded table.

    make search-compare
    python -m benchmarks.sampling.compare mnist          # every pair, to choose one
    python -m benchmarks.sampling.compare cifar10 --few  # the choice and its peers, on the table it was not made on

Every proposal is answered by its nearest unused row, whose recorded scores are reported epoch by epoch to the pruner.
Counted are the epochs until the search's best trial is a row of the best twentieth. Against overfitting to one table
each contender is also replayed on the table's two halves (drawn at random, each with its own best twentieth), with four
workers that take turns, and with noise on every score, as much as ten images of each small class make. With --few also
the score, without noise, of the best trial after a budget of full trainings, searched with noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks.commands import machine
from benchmarks.sampling.contenders import ALL, CHOSEN, DEFAULT, RANDOM, REFERENCE, Contender
from benchmarks.sampling.replay import Replay
from benchmarks.sampling.table import TABLES, Table, read

SEEDS = 50
SETTINGS = ("all rows", "half A", "half B", "4 workers", "noisy scores")
NOISE = 0.018  # the standard deviation of macro F1 with ten images in each small class
BUDGETS = (10, 20, 40)  # full trainings
HELD_OUT = [Contender(*pair) for pair in (CHOSEN, DEFAULT, REFERENCE, RANDOM)]


@dataclass(frozen=True)
class Result:
    """Epochs to success of one contender, for each setting and seed; infinite where it never came."""

    contender: Contender
    epochs: dict[str, list[float]]

    def median(self, setting: str) -> float:
        return _quantile(self.epochs[setting], 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--few", action="store_true", help="the choice, Optuna's default, the reference, random search")
    options = parser.parse_args()
    table = read(options.table)
    contenders, tables = HELD_OUT if options.few else ALL, settings(table)
    with ProcessPoolExecutor(options.processes) as pool:
        waiting = [pool.submit(measure, contender, tables, options.seeds) for contender in contenders]
        results = [one.result() for one in waiting]
    print(markdown(results))
    if options.few:
        print(f"\n{winners_markdown(table, options.seeds)}")
    print(f"\n{options.table}, {len(table)} rows, medians of {options.seeds} seeds; {machine()}")


def settings(table: Table) -> dict[str, Table]:
    """The tables to search; the halves are disjoint."""
    first, second = np.array_split(np.random.default_rng(0).permutation(len(table)), 2)
    return dict(zip(SETTINGS, (table, table.part(first), table.part(second), table, table), strict=True))


def measure(contender: Contender, tables: dict[str, Table], seeds: int) -> Result:
    """In a process of the pool."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    epochs = {
        setting: [
            Replay(
                table,
                contender,
                seed,
                workers=4 if setting == "4 workers" else 1,
                noise=NOISE if setting == "noisy scores" else 0.0,
            ).epochs_to_success()
            for seed in range(seeds)
        ]
        for setting, table in tables.items()
    }
    return Result(contender, epochs)


def markdown(results: Sequence[Result]) -> str:
    """By mean rank over the settings, the best first; ratios are to the reference's median in the same setting."""
    reference = next(one for one in results if one.contender == Contender(*REFERENCE))
    ranks = mean_ranks(results)
    lines = [
        "| sampler | pruner | epochs: median | quartiles | never | ratio | half A | half B | 4 workers | noisy scores "
        "| mean rank |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result, rank in sorted(zip(results, ranks, strict=True), key=lambda pair: pair[1]):
        lines.append(f"{_row(result, reference)} {rank:.1f} |")
    return "\n".join(lines)


def winners_markdown(table: Table, seeds: int) -> str:
    """The mean and standard deviation over the seeds of what each of the few has found after each budget."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    after = " | ".join(f"{budget} trainings" for budget in BUDGETS)
    lines = [f"| sampler | pruner | {after} |", "|---|---|---|---|---|"]
    for contender in HELD_OUT:
        replays = [Replay(table, contender, seed, noise=NOISE) for seed in range(seeds)]
        found = np.array([replay.winners([budget * table.epochs for budget in BUDGETS]) for replay in replays])
        shown = [f"{mean:.4f} ± {deviation:.4f}" for mean, deviation in zip(*_moments(found), strict=True)]
        lines.append(f"| {contender.sampler} | {contender.pruner} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.nanmean(values, axis=0), np.nanstd(values, axis=0, ddof=1)


def _row(result: Result, reference: Result) -> str:
    """A line; a rank may follow."""
    contender, spent = result.contender, result.epochs[SETTINGS[0]]
    known = {REFERENCE: " (the reference's)", RANDOM: " (random search)", DEFAULT: " (Optuna 5's default)"}
    note = known.get((contender.sampler, contender.pruner), "")
    ratios = [f"{result.median(setting) / reference.median(setting):.2f}" for setting in result.epochs]
    quartiles = f"{_quantile(spent, 0.25):.0f} to {_quantile(spent, 0.75):.0f}"
    never = f"{sum(map(np.isinf, spent))}"
    median = f"{result.median(SETTINGS[0]):.0f}"
    return f"| {' | '.join([contender.sampler, contender.pruner + note, median, quartiles, never, *ratios])} |"


def mean_ranks(results: Sequence[Result]) -> list[float]:
    """Each contender's rank by its median, averaged over the settings."""
    medians = np.array([[result.median(setting) for setting in SETTINGS] for result in results])
    return [float(rank) for rank in rankdata(medians, axis=0).mean(axis=1)]


def _quantile(values: Sequence[float], share: float) -> float:
    """Without interpolation, which infinite values do not bear."""
    return float(np.quantile(values, share, method="inverted_cdf"))


if __name__ == "__main__":
    main()
