"""A search that is replayed from the table: Optuna proposes, the nearest unused row answers, epoch by epoch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState

from affinity_search.storage.trials.sampling import make_pruner, make_sampler, suggest
from affinity_search.storage.trials.seeds import sampler_seed
from benchmarks.sampling.contenders import Contender
from benchmarks.sampling.table import Table

NEVER = math.inf


class Replay:
    """One search over a table by one or several workers that take turns, an epoch each.

    As in a real search the pruner and the sampler are told the best score so far, and a pruned trial counts with it.
    """

    def __init__(self, table: Table, contender: Contender, seed: int, workers: int = 1, noise: float = 0.0) -> None:
        """`noise` is the standard deviation of what is added to each epoch's macro F1, as few images would."""
        self._table = table
        self._scores = table.macro_f1 + noise * np.random.default_rng(seed).normal(size=table.macro_f1.shape)
        self._contender = contender
        self._seed = seed
        self._workers = workers
        self._free: NDArray[np.bool_] = np.ones(len(table), bool)
        self._wanted = table.best_rows
        self._best = (math.inf, -1)  # value and row of the best trial that has ended
        self._study = optuna.create_study()

    def epochs_to_success(self) -> float:
        """Epochs trained, by all workers, when the best trial so far is one of the best rows.

        `NEVER` if the rows are used up before: the pruner stopped all of the best ones too early.
        """
        return next((spent for spent in self._ends() if self._best[1] in self._wanted), NEVER)

    def winners(self, budgets: Sequence[int]) -> list[float]:
        """The macro F1, without noise, of the best trial that has ended within each budget of epochs.

        The noise stands for the validation images that the search goes by, the recorded score for test images. NaN
        where no trial has ended.
        """
        found = [math.nan] * len(budgets)
        for spent in self._ends():
            reached = float(self._table.macro_f1[self._best[1]].max())
            found = [reached if spent <= budget else kept for budget, kept in zip(budgets, found, strict=True)]
            if spent > max(budgets):
                break
        return found

    def _ends(self) -> Iterator[int]:
        """Search until the rows are used up; after each trial's end, the epochs spent by all workers so far."""
        spent = 0
        running = deque(self._trial() for _ in range(self._workers))
        while running:
            trial = running.popleft()
            if next(trial, False):
                spent += 1
                running.append(trial)
                continue
            yield spent
            if self._free.any():
                running.appendleft(self._trial())

    def _trial(self) -> Iterator[bool]:
        """As a worker trains it; yields True for each epoch, before its score is reported."""
        trial, row = self._ask()
        values = np.minimum.accumulate(1.0 - self._scores[row])
        for epoch, value in enumerate(values):
            yield True
            trial.report(value, epoch)
            if epoch + 1 < len(values) and trial.should_prune():
                self._study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            self._study.tell(trial, value)
        self._best = min(self._best, (value, row))

    def _ask(self) -> tuple[optuna.Trial, int]:
        """The next trial and the row that answers it, which is used from now on."""
        number = len(self._table) - int(self._free.sum())
        sampler, pruner = self._contender.sampler_spec, self._contender.pruner_spec
        self._study.sampler = make_sampler(sampler, sampler_seed(self._seed, number))
        self._study.pruner = make_pruner(pruner, self._table.epochs)
        trial = self._study.ask()
        row = self._table.nearest(suggest(trial, self._table.space), self._free)
        self._free[row] = False
        return trial, row
