"""One training run after another on one compiled network: parameters in, a score per epoch out."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from affinity_search.search.devices import Device, Predictor
from affinity_search.search.training.checkpoints import TrainingState
from affinity_search.search.training.data.splits import DatasetFacts, Split
from affinity_search.search.training.errors import CheckpointError, DivergedError, OutOfMemoryError, TrainingInterrupted
from affinity_search.search.training.heads.base import Params
from affinity_search.search.training.metrics import Scores, score
from affinity_search.search.training.networks.building import (
    NetworkConfig,
    build_network,
    classes_of,
    reset_network,
    trainable_state,
)
from affinity_search.search.training.networks.features import Features, centers_among_features, features_of
from affinity_search.search.training.results import (
    EpochScore,
    TrainingConfig,
    TrainingResult,
)
from affinity_search.search.training.schedule import (
    Pace,
    epoch_order,
    learning_rate,
    make_optimizer,
    reset_optimizer,
    whole_batches,
)

__all__ = ["EpochScore", "Trainer", "TrainingConfig", "TrainingResult", "TrainingState"]

ShouldStop = Callable[[], bool]

# Images scored in one step: large enough for speed, small enough for the memory of any device.
EVALUATION_BATCH = 1000


class Trainer:
    """A network with its data on the device, built and compiled once, trained from scratch by every run.

    A run's result depends on its parameters and seed alone, bit for bit, not on earlier runs.
    """

    def __init__(
        self,
        device: Device,
        train: Split,
        evaluation: Split,
        facts: DatasetFacts,
        network: NetworkConfig,
        training: TrainingConfig,
        max_centers: int = 1,
        test: Split | None = None,
    ) -> None:
        """`max_centers` is the largest m, or whatever else sizes the head's arrays, that any run will ask for.

        `test` is scored by `score_test` only. Raises ValueError if the network does not fit the images.
        """
        parts = [train, evaluation] if test is None else [train, evaluation, test]
        self._n_classes, self._minority = facts.n_classes, evaluation.minority
        self._device, self._training = device, training
        self._train, self._evaluation, *self._test = _place(parts)
        # Every replica of a TPU takes an equal part of it.
        self._evaluation_batch = whole_batches(min(EVALUATION_BATCH, len(evaluation)), device.replicas())
        with device.scope():
            self._model = build_network(
                network,
                np.concatenate([part.images for part in parts]),
                train.counts(facts.n_classes),
                max_centers,
                (facts.shift_px, facts.flip) if training.augment else None,
                training.precision,
                np.concatenate([part.labels for part in parts]),
            )
            self._head = self._model.get_layer("head")
            classes = classes_of(self._model)
            self._compile()
        self._steps = device.training_steps(self._model, training.batch)
        self._classes = device.predictor(classes)
        self._pace = Pace()
        self._features: Predictor | None = None
        self._done: list[EpochScore] = []  # of the present run
        self.epoch_share = 0.0  # of the present epoch, from 0 to 1

    def _compile(self) -> None:
        optimizer = make_optimizer(self._training.precision)
        # The device compiles the steps.
        self._model.compile(optimizer=optimizer, loss=self._head.loss, jit_compile=False)
        optimizer.build(self._model.trainable_variables)

    def epochs(
        self,
        params: Params,
        seed: int,
        *,
        should_stop: ShouldStop | None = None,
        resume: TrainingState | None = None,
    ) -> Iterator[EpochScore]:
        """Train from scratch, or from `resume` on, and yield each epoch's score; those of `resume` come first.

        Whoever leaves the loop early ends the training. `params` are those of the network's head, by their names.
        `should_stop` is asked after every call of the compiled steps, about once a second.
        Raises TrainingInterrupted if `should_stop` says so, DivergedError at a NaN or infinite epoch loss,
        OutOfMemoryError, CheckpointError (before the first epoch) if `resume` is of another network, and ValueError if
        the parameters do not fit the head.
        """
        with _memory_watched(self._device):
            self._begin(params, seed)
            self._done = []
            if resume is not None:
                self.go_back(resume)
            yield from tuple(self._done)
            for epoch in range(len(self._done), self._training.epochs):
                self._done.append(self._epoch(epoch, seed, should_stop))
                yield self._done[-1]

    def run(
        self,
        params: Params,
        seed: int,
        *,
        should_stop: ShouldStop | None = None,
        resume: TrainingState | None = None,
    ) -> TrainingResult:
        """All of `epochs` at once."""
        return TrainingResult(tuple(self.epochs(params, seed, should_stop=should_stop, resume=resume)))

    def state(self) -> TrainingState:
        """Where the run stands after its last epoch. Variables are copied on the device: few ever leave it."""
        return TrainingState(tuple(self._done), self._variables())

    def go_back(self, state: TrainingState) -> None:
        """Put weights, optimiser and random state back. Raises CheckpointError if they are of another network."""
        self._restore(state)
        self._done = list(state.epochs)

    def _variables(self) -> dict[str, Any]:
        """Copies of all that makes up the state of training, by path."""
        return {variable.path: ops.copy(variable) for variable in trainable_state(self._model)}

    def _restore(self, state: TrainingState) -> None:
        mine = {variable.path: variable for variable in trainable_state(self._model)}
        shapes = {path: tuple(variable.shape) for path, variable in mine.items()}
        if shapes != {path: tuple(value.shape) for path, value in state.variables.items()}:
            raise CheckpointError("it is of another network, or was written by another version of Keras")
        for path, value in state.variables.items():
            mine[path].assign(value)

    def features(self) -> Features:
        """Of the evaluation images with the present weights, and where the head's centres lie among them."""
        indices, labels = self._evaluation
        padded = np.resize(indices, whole_batches(len(indices), self._evaluation_batch))
        if self._features is None:  # once: a new function would be traced anew every epoch
            self._features = self._device.predictor(features_of(self._model))
        values = self._predict(padded, None, self._features)[: len(labels)]
        return Features(values, labels, centers_among_features(self._model))

    def score_test(self) -> Scores:
        """Score the test split with the present weights. Raises ValueError if the trainer was given none."""
        if not self._test:
            raise ValueError("this trainer was built without a test split")
        return self._score(*self._test[0])

    def _begin(self, params: Params, seed: int) -> None:
        """Everything a run starts from: weights, parameters, optimiser, random state."""
        reset_network(self._model, params, seed)
        reset_optimizer(self._model.optimizer)

    def _epoch(self, epoch: int, seed: int, should_stop: ShouldStop | None) -> EpochScore:
        started = time.perf_counter()
        self._model.optimizer.learning_rate = learning_rate(self._training, epoch)
        loss = self._fit(epoch_order(*self._train, self._training.batch, seed, epoch), should_stop)
        if not math.isfinite(loss):
            raise DivergedError(epoch, loss)
        scores = self._score(*self._evaluation, should_stop)
        return EpochScore(epoch, loss, scores, time.perf_counter() - started, self._head.diagnostics())

    def _fit(self, order: tuple[NDArray[np.int32], NDArray[np.int32]], should_stop: ShouldStop | None) -> float:
        """One pass in the given order, many steps a call; the mean loss."""
        indices, labels = (part.reshape(-1, self._training.batch) for part in order)
        self._model.reset_metrics()
        self._head.begin_epoch()
        loss, start, self.epoch_share = 0.0, 0, 0.0
        while start < len(indices):
            count = self._pace.steps(len(indices) - start)
            began = time.perf_counter()
            loss = self._steps.run(indices, labels, start, count)
            self._pace.learn(count, time.perf_counter() - began)
            start += count
            self.epoch_share = start / len(indices)
            _raise_if_asked(should_stop)
        return loss

    def _score(
        self, indices: NDArray[np.int32], labels: NDArray[np.int32], should_stop: ShouldStop | None = None
    ) -> Scores:
        """Padded to whole batches, so that every step has one shape, and trimmed again."""
        padded = np.resize(indices, whole_batches(len(indices), self._evaluation_batch))
        predictions = self._predict(padded, should_stop, self._classes)[: len(labels)]
        return score(labels, predictions, self._n_classes, self._minority)

    def _predict(
        self, indices: NDArray[np.int32], should_stop: ShouldStop | None, predictor: Predictor
    ) -> NDArray[Any]:
        """A model's outputs (N, …) for N a multiple of the evaluation batch; ten thousand images take a CPU long."""
        predicted = []
        for part in np.split(indices, len(indices) // self._evaluation_batch):
            _raise_if_asked(should_stop)
            predicted.append(predictor(part))
        return np.concatenate(predicted)


def _raise_if_asked(should_stop: ShouldStop | None) -> None:
    if should_stop is not None and should_stop():
        raise TrainingInterrupted("Training was asked to stop; the trial is unfinished and can be run again.")


@contextlib.contextmanager
def _memory_watched(device: Device) -> Iterator[None]:
    """Every backend has its own exception for a device without room."""
    try:
        yield
    except Exception as error:
        if not device.is_out_of_memory(error):
            raise
        details = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise OutOfMemoryError(
            f"{device.describe()} ran out of memory ({details}); if it happens again, use fewer workers on it or a "
            "smaller training.batch"
        ) from error


def _place(parts: list[Split]) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """(indices, labels) of each part in the table that holds all parts, one after the other."""
    ends = np.cumsum([len(part) for part in parts])
    return [
        (np.arange(end - len(part), end, dtype=np.int32), part.labels) for part, end in zip(parts, ends, strict=True)
    ]
