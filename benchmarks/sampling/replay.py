"""A search that is replayed from the table: Optuna proposes, the nearest unused row answers, epoch by epoch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState

from benchmarks.sampling.contenders import Contender
from benchmarks.sampling.table import Table
from search.sampling import make_pruner, make_sampler, suggest
from search.seeds import sampler_seed

NEVER = math.inf


class Replay:
    """One search over a table by one or several workers that take turns, an epoch each."""

    def __init__(self, table: Table, contender: Contender, seed: int, workers: int = 1) -> None:
        self._table = table
        self._contender = contender
        self._seed = seed
        self._workers = workers
        self._free: NDArray[np.bool_] = np.ones(len(table), bool)
        self._wanted = table.best_rows
        self._found = False
        self._study = optuna.create_study()

    def epochs_to_success(self) -> float:
        """Epochs trained, by all workers, when one of the best rows has come to its last epoch unpruned.

        `NEVER` if the rows are used up before: the pruner stopped all of the best ones.
        """
        spent = 0
        running = deque(self._trial() for _ in range(self._workers))
        while running:
            trial = running.popleft()
            if next(trial, False):
                spent += 1
                running.append(trial)
            elif self._found:
                return spent
            elif self._free.any():
                running.appendleft(self._trial())
        return NEVER

    def _trial(self) -> Iterator[bool]:
        """As a worker trains it; yields True for each epoch, before its score is reported."""
        trial, row = self._ask()
        curve = self._table.macro_f1[row]
        for epoch, score in enumerate(curve):
            yield True
            trial.report(1.0 - score, epoch)
            if epoch + 1 < len(curve) and trial.should_prune():
                self._study.tell(trial, state=TrialState.PRUNED)
                return
        self._study.tell(trial, 1.0 - curve.max())
        self._found |= row in self._wanted

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
