"""What there is to train: how many trainings, of how many epochs, and how long that takes on some workers."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

from affinity_search.search.experiments.cost.measuring import Speed
from affinity_search.studies.model.spec import PrunerSpec, StudySpec

SIMULATED = 60  # trials
LAUNCH_S = 1.5  # the launcher's own, before its workers and after them
SERVICE_S = 0.1  # of a trial, for its claim, its proposal, its reports and its end: `make overhead`
STEPS = 200  # epochs at which a simulated trial reports at most


@dataclass(frozen=True)
class Work:
    """Trainings of one study, all alike."""

    study: str
    trainings: int
    epochs: int  # of each at most
    lengths: tuple[int, ...] = field(repr=False, default=())  # epochs of some of them, as the pruner would end them

    @property
    def most_epochs(self) -> int:
        """Without a pruner."""
        return self.trainings * self.epochs

    @property
    def expected_epochs(self) -> int:
        """With the study's pruner."""
        return sum(self.each())

    def each(self) -> list[int]:
        """The epochs of every training."""
        return list(islice(cycle(self.lengths or (self.epochs,)), self.trainings))


def work_of(spec: StudySpec, trainings: int, seen: Sequence[int] = ()) -> Work:
    """Of a search. `seen` are the epochs that its finished trials had; without them the pruner is simulated."""
    lengths = tuple(seen) or (pruned_lengths(spec.pruner, spec.trial_epochs) if spec.pruner.kind != "none" else ())
    return Work(spec.name, trainings, spec.trial_epochs, lengths)


def final_work_of(spec: StudySpec, draws: int) -> Work:
    """Of the final runs that judge a search: each is one training, and nothing prunes it."""
    return Work(f"{spec.name}, final runs", draws, spec.training.epochs)


def pruned_lengths(pruner: PrunerSpec, epochs: int, trials: int = SIMULATED) -> tuple[int, ...]:
    """Epochs after which the pruner ends each of some trials, if these come in any order and never change ranks.

    Real trials do change ranks, and a sampler that learns makes later ones better: this is a first guess.
    """
    import optuna

    from affinity_search.storage.trials.sampling import make_pruner, study_of_nothing

    study = study_of_nothing(pruner=make_pruner(pruner, epochs), sampler=optuna.samplers.RandomSampler(seed=0))
    values = random.Random(0)
    reports = sorted({round((at + 1) * epochs / STEPS) - 1 for at in range(STEPS)} - {-1} | {epochs - 1})
    found = []
    for _ in range(trials):
        trial, value, ended = study.ask(), values.random(), epochs
        for epoch in reports if epochs > STEPS else range(epochs):
            trial.report(value, epoch)
            if trial.should_prune():
                ended = epoch + 1
                break
        study.tell(trial, value)  # as complete: a pruner looks at the reports alone
        found.append(ended)
    return tuple(found)


def seconds(works: Sequence[tuple[Work, Speed]], workers: int, *, pruned: bool) -> float:
    """From the launch to its end: the studies one after the other, each on all workers.

    A worker takes the next training when it is free, so at the end some have nothing to do.
    """
    total = LAUNCH_S + works[0][1].process_s if works else 0.0
    for work, speed in works:
        free = [speed.setup_s] * workers
        for epochs in work.each() if pruned else [work.epochs] * work.trainings:
            heapq.heappush(free, heapq.heappop(free) + speed.trial_s + SERVICE_S + epochs * speed.epoch_s)
        total += max(free)
    return total
