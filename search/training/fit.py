"""One training run after another on one compiled network: parameters in, a score per epoch out."""

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from search import devices
from search.training.datasets import DatasetFacts, Split
from search.training.errors import DivergedError, TrainingInterrupted
from search.training.metrics import Scores, score
from search.training.networks import NetworkConfig, build_network, layer_seeds, reset_network, trainable_state
from search.training.results import AffinityParams, EpochScore, TrainingConfig, TrainingResult

__all__ = ["AffinityParams", "EpochScore", "Trainer", "TrainingConfig", "TrainingResult"]

OnEpoch = Callable[[EpochScore], None]
ShouldStop = Callable[[], bool]

# Images scored in one step: large enough for speed, small enough for the memory of any device.
EVALUATION_BATCH = 1000
DROP = 5  # the learning rate is divided by it at each drop


class Trainer:
    """A network with its data on the device, built and compiled once, trained from scratch by every `run`.

    A run's result depends on its parameters and seed alone, bit for bit, not on earlier runs.
    """

    def __init__(
        self,
        train: Split,
        evaluation: Split,
        facts: DatasetFacts,
        network: NetworkConfig,
        training: TrainingConfig,
        max_centers: int = 1,
        test: Split | None = None,
    ) -> None:
        """`max_centers` is the largest m any run will ask for. `test` is scored by `score_test` only.

        Raises ValueError if the network does not fit the images.
        """
        parts = [train, evaluation] if test is None else [train, evaluation, test]
        self._n_classes = facts.n_classes
        self._training = training
        self._train, self._evaluation, *self._test = _place(parts)
        self._evaluation_batch = min(EVALUATION_BATCH, len(evaluation))
        with devices.scope():
            self._model = build_network(
                network,
                np.concatenate([part.images for part in parts]),
                facts.n_classes,
                max_centers,
                (facts.shift_px, facts.flip) if training.augment else None,
                training.precision,
            )
            self._head = self._model.get_layer("head") if network.head == "affinity" else None
            self._compile()

    def _compile(self) -> None:
        optimizer = keras.optimizers.Adam()
        softmax_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        loss = softmax_loss if self._head is None else self._head.loss
        self._model.compile(optimizer=optimizer, loss=loss, **devices.compile_options())
        optimizer.build(self._model.trainable_variables)

    def run(
        self,
        params: AffinityParams | None,
        seed: int,
        on_epoch: OnEpoch | None = None,
        should_stop: ShouldStop | None = None,
        restore_best: bool = False,
    ) -> TrainingResult:
        """Train from scratch; the affinity head needs `params`, the softmax head takes None.

        `on_epoch` is called after each epoch and whatever it raises passes through; `should_stop` is asked after
        every step. With `restore_best` the weights of the best epoch are left in place, else those of the last.
        Raises TrainingInterrupted if `should_stop` says so, DivergedError at a NaN or infinite epoch loss, and
        ValueError if the parameters do not fit the head.
        """
        self._begin(params, seed)
        done: list[EpochScore] = []
        best: list[NDArray[Any]] = []
        for epoch in range(self._training.epochs):
            done.append(self._epoch(epoch, seed, should_stop))
            if restore_best and TrainingResult(tuple(done)).best is done[-1]:
                best = [ops.convert_to_numpy(variable) for variable in trainable_state(self._model)]
            if on_epoch is not None:
                on_epoch(done[-1])
        for variable, value in zip(trainable_state(self._model), best, strict=True) if best else ():
            variable.assign(value)
        return TrainingResult(tuple(done))

    def score_test(self) -> Scores:
        """Score the test split with the present weights. Raises ValueError if the trainer was given none."""
        if not self._test:
            raise ValueError("this trainer was built without a test split")
        return self._score(*self._test[0])

    def _begin(self, params: AffinityParams | None, seed: int) -> None:
        """Everything a run starts from: weights, centres, optimiser, random state."""
        if (params is None) != (self._head is None):
            raise ValueError("the affinity head needs its parameters, and the softmax head takes none")
        reset_network(self._model, seed)
        if self._head is not None and params is not None:
            head_seed = layer_seeds(self._model, seed)[-1]  # the head is the last layer
            self._head.begin(params.lambda_, params.sigma, params.n_centers, head_seed)
        for variable in self._model.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))

    def _epoch(self, epoch: int, seed: int, should_stop: ShouldStop | None) -> EpochScore:
        started = time.perf_counter()
        self._model.optimizer.learning_rate = learning_rate(self._training, epoch)
        loss = self._fit(epoch_order(*self._train, self._training.batch, seed, epoch), should_stop)
        if not math.isfinite(loss):
            raise DivergedError(epoch, loss)
        scores = self._score(*self._evaluation)
        return EpochScore(epoch, loss, scores, duration_s=time.perf_counter() - started)

    def _fit(self, batches: tuple[NDArray[np.int32], NDArray[np.int32]], should_stop: ShouldStop | None) -> float:
        """One pass in the given order; the mean loss."""
        watch = _Watch(should_stop)
        history = self._model.fit(
            *batches,
            batch_size=self._training.batch,
            shuffle=False,
            verbose=0,
            callbacks=[watch] if should_stop else [],
        )
        if watch.stopped:
            raise TrainingInterrupted("Training was asked to stop; the trial is unfinished and can be run again.")
        return float(history.history["loss"][0])

    def _score(self, indices: NDArray[np.int32], labels: NDArray[np.int32]) -> Scores:
        """Padded to whole batches, so that every step has one shape, and trimmed again."""
        padded = np.resize(indices, _whole(len(indices), self._evaluation_batch))
        outputs = self._predict(padded)[: len(labels)]
        return score(labels, outputs.argmax(axis=1), self._n_classes)

    def _predict(self, indices: NDArray[np.int32]) -> NDArray[np.float32]:
        """The head's outputs (N, C) for N a multiple of the evaluation batch."""
        batch = self._evaluation_batch
        if devices.replicas() > 1:  # predict_on_batch would give every replica the whole batch
            return np.asarray(self._model.predict(indices, batch_size=batch, verbose=0))
        # predict builds a tf.data pipeline at each call: 45 ms an epoch on digits, against 1.5 ms.
        return np.concatenate([self._model.predict_on_batch(part) for part in np.split(indices, len(indices) // batch)])


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Asks after each step whether to stop; ends `fit` the regular way, as an exception inside would lose JAX state."""

    def __init__(self, should_stop: ShouldStop | None) -> None:
        super().__init__()
        self._should_stop = should_stop
        self.stopped = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._should_stop is not None and self._should_stop():
            self.stopped = self.model.stop_training = True


def _place(parts: list[Split]) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """(indices, labels) of each part in the table that holds all parts, one after the other."""
    ends = np.cumsum([len(part) for part in parts])
    return [
        (np.arange(end - len(part), end, dtype=np.int32), part.labels) for part, end in zip(parts, ends, strict=True)
    ]


def _whole(n: int, batch: int) -> int:
    return math.ceil(n / batch) * batch


def epoch_order(
    indices: NDArray[np.int32], labels: NDArray[np.int32], batch: int, seed: int, epoch: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The epoch's (indices, labels) in random order, the last batch filled up from the order's start.

    Depends on seed and epoch alone, so that a continued run sees what an uninterrupted one sees.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(indices))
    filled = np.resize(order, _whole(len(order), batch))
    return indices[filled], labels[filled]


def learning_rate(training: TrainingConfig, epoch: int) -> float:
    """The rate of `epoch`, counted from 0: divided by 5 from each drop's share of the epochs on."""
    passed = sum(epoch >= round(drop * training.epochs, 9) for drop in training.drops)  # 0.55 · 100 is a little over 55
    return training.learning_rate / float(DROP**passed)
