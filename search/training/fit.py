"""One training run after another on one compiled network: parameters in, a score per epoch out."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from keras import Model, ops
from numpy.typing import NDArray

from affinity_search.search.devices import Device, Predictor
from affinity_search.search.training.checkpoints import TrainingState
from affinity_search.search.training.data.splits import DatasetFacts, Split
from affinity_search.search.training.errors import CheckpointError, DivergedError, OutOfMemoryError, TrainingInterrupted
from affinity_search.search.training.heads.base import Params
from affinity_search.search.training.heads.class_sizes import log_shares
from affinity_search.search.training.metrics import Scores, score, softmax
from affinity_search.search.training.networks.building import (
    NetworkConfig,
    build_network,
    reset_network,
    trainable_state,
)
from affinity_search.search.training.networks.features import Features, centers_among_features, features_of
from affinity_search.search.training.networks.layers import Table
from affinity_search.search.training.networks.saving import inference_model
from affinity_search.search.training.results import (
    EpochScore,
    TrainingConfig,
    TrainingResult,
)
from affinity_search.search.training.schedule import (
    Pace,
    class_weights,
    epoch_order,
    learning_rate,
    make_optimizer,
    reset_optimizer,
    set_weight_decay,
    whole_batches,
)

__all__ = ["EpochScore", "Trainer", "TrainingConfig", "TrainingResult", "TrainingState"]

ShouldStop = Callable[[], bool]

# τ of the post-hoc adjustment; 0 leaves the logits as they are.
ADJUSTMENTS = tuple(step / 10 for step in range(21))

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

        The splits hold images, or vectors as float32 (N, D) in their `images`. `test` is scored by `score_test` only.
        Raises ValueError if the network does not fit the images.
        """
        parts = [train, evaluation] if test is None else [train, evaluation, test]
        self._n_classes, self._minority = facts.n_classes, evaluation.minority
        self._class_sizes = train.counts(facts.n_classes)
        self._device, self._network, self._training = device, network, training
        self._train, self._evaluation, *self._test = _place(parts)
        # Every replica of a TPU takes an equal part of it.
        self._evaluation_batch = whole_batches(min(EVALUATION_BATCH, len(evaluation)), device.replicas())
        with device.scope():
            self._model = build_network(
                network,
                np.concatenate([part.images for part in parts]),
                self._class_sizes,
                max_centers,
                (facts.shift_px, facts.flip) if training.augment else None,
                training.precision,
                np.concatenate([part.labels for part in parts]),
            )
            self._head: Any = self._model.get_layer("head")
            if training.adjust and not self._head.logits:
                raise ValueError(f"the {network.head} head gives no logits that could be adjusted")
            self._compile()
        self._steps = device.training_steps(self._model, training.batch)
        # A model of its own, as for the features: on JAX, Keras does not compile the predictions of one whose steps the
        # device compiles.
        self._outputs = device.predictor(Model(self._model.inputs, self._model.outputs))
        self._copies = device.copier(trainable_state(self._model))
        self._pace = Pace()
        self._features: Predictor | None = None
        self._done: list[EpochScore] = []  # of the present run
        self.epoch_share = 0.0  # of the present epoch, from 0 to 1

    def use(self, train: Split, evaluation: Split) -> None:
        """Train and evaluate on other images from now on, as many in all as before.

        Nothing is compiled again where each part has as many batches as before. Raises ValueError for another number.
        """
        count = len(self._train[0]) + len(self._evaluation[0])
        if count != len(train) + len(evaluation):
            raise ValueError(f"{len(train)} and {len(evaluation)} images; this trainer has room for {count} in all")
        for layer in self._model.layers:
            if isinstance(layer, Table):  # "images", and "labels" for a head that is told them
                rows = ops.convert_to_numpy(layer.table).copy()
                rows[:count] = np.concatenate([getattr(part, layer.name) for part in (train, evaluation)])
                layer.table.assign(rows)
        self._train, self._evaluation = _place([train, evaluation])

    def _compile(self) -> None:
        optimizer = make_optimizer(self._training, self._model.trainable_variables)
        # The device compiles the steps.
        self._model.compile(optimizer=optimizer, loss=self._head.loss, jit_compile=False)

    def epochs(
        self,
        params: Params,
        seed: int,
        *,
        should_stop: ShouldStop | None = None,
        resume: TrainingState | None = None,
    ) -> Iterator[EpochScore]:
        """Train from scratch, or from `resume` on, and yield each epoch's score; those of `resume` come first.

        Whoever leaves the loop early ends the training. `params` are those of the network's head, by their names, and
        perhaps `learning_rate` and `weight_decay`.
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
        paths = [variable.path for variable in trainable_state(self._model)]
        return dict(zip(paths, self._copies(), strict=True))

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

    def inference_model(self, about: Mapping[str, Any], adjustment: float | None = None) -> Any:
        """The network with the present weights, from images or vectors to class scores, as `saving` has it.

        `adjustment` is τ of the post-hoc adjustment, for a head with logits.
        """
        shift = None if adjustment is None else adjustment * log_shares(self._class_sizes)
        return inference_model(self._model, self._network, about, shift)

    def score_test(self, *shares: Sequence[float] | None) -> list[Scores]:
        """Score the test split with the present weights and the last epoch's adjustment, once for each of the `shares`.

        These are as in `score`. Raises ValueError if the trainer was given no test split.
        """
        if not self._test:
            raise ValueError("this trainer was built without a test split")
        indices, labels = self._test[0]
        adjustment = self._done[-1].adjustment if self._done else None
        outputs = self._outputs_for(indices)
        return [self._score(labels, outputs, adjustment, each) for each in shares or (None,)]

    def _begin(self, params: Params, seed: int) -> None:
        """Everything a run starts from: weights, parameters, optimiser, random state."""
        shared = dict(params)
        rate = shared.pop("learning_rate", self._training.learning_rate)
        if rate is None:
            raise ValueError("neither the run nor its trainer has a learning_rate")
        self._rate = rate
        decay = shared.pop("weight_decay", 0.0)
        if decay and not self._training.decays:
            raise ValueError(
                f"weight_decay is {decay}; this trainer was built for runs without: TrainingConfig(decays=True)"
            )
        reset_network(self._model, shared, seed)
        reset_optimizer(self._model.optimizer)
        set_weight_decay(self._model.optimizer, decay)

    def _epoch(self, epoch: int, seed: int, should_stop: ShouldStop | None) -> EpochScore:
        started = time.perf_counter()
        self._model.optimizer.learning_rate = learning_rate(self._training, epoch, self._rate)
        weights = class_weights(self._class_sizes, self._training, epoch)
        loss = self._fit(epoch_order(*self._train, self._training, seed, epoch), weights, should_stop)
        if not math.isfinite(loss):
            raise DivergedError(epoch, loss)
        scores, adjustment = self._evaluate(should_stop)
        return EpochScore(epoch, loss, scores, time.perf_counter() - started, self._head.diagnostics(), adjustment)

    def _fit(
        self,
        order: tuple[NDArray[np.int32], NDArray[np.int32]],
        class_weights: NDArray[np.float32],
        should_stop: ShouldStop | None,
    ) -> float:
        """One pass in the given order, many steps a call; the mean loss."""
        indices, labels = (part.reshape(-1, self._training.batch) for part in order)
        weights = class_weights[labels]
        self._model.reset_metrics()
        self._head.begin_epoch()
        loss, start, self.epoch_share = 0.0, 0, 0.0
        while start < len(indices):
            count = self._pace.steps(len(indices) - start)
            began = time.perf_counter()
            loss = self._steps.run(indices, labels, weights, start, count)
            self._pace.learn(count, time.perf_counter() - began)
            start += count
            self.epoch_share = start / len(indices)
            _raise_if_asked(should_stop)
        return loss

    def _evaluate(self, should_stop: ShouldStop | None) -> tuple[Scores, float | None]:
        """Scores of the evaluation images, and the τ of the adjustment that scores best, the smallest of equals."""
        outputs = self._outputs_for(self._evaluation[0], should_stop)
        labels = self._evaluation[1]
        if not self._training.adjust:
            return self._score(labels, outputs, None), None
        tried = [(self._score(labels, outputs, tau), tau) for tau in ADJUSTMENTS]
        return max(tried, key=lambda one: (one[0][self._training.metric], -one[1]))

    def _score(
        self,
        labels: NDArray[np.int32],
        outputs: NDArray[Any],
        adjustment: float | None,
        shares: Sequence[float] | None = None,
    ) -> Scores:
        """Score the head's outputs (N, C), adjusted by τ log π if there is a τ. Menon et al. 2021, eq. (9)."""
        if adjustment is not None:
            outputs = outputs - adjustment * log_shares(self._class_sizes)
        return score(
            labels,
            outputs.argmax(axis=1),
            self._n_classes,
            self._minority,
            class_sizes=self._class_sizes,
            probabilities=softmax(outputs) if self._head.logits else None,
            shares=shares,
        )

    def _outputs_for(self, indices: NDArray[np.int32], should_stop: ShouldStop | None = None) -> NDArray[Any]:
        """Padded to whole batches, so that every step has one shape, and trimmed again."""
        padded = np.resize(indices, whole_batches(len(indices), self._evaluation_batch))
        return self._predict(padded, should_stop, self._outputs)[: len(indices)]

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
