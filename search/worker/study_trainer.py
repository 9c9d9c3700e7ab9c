"""What all trials of a study share: its images, and one trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affinity_search.search.worker.images import read_splits, read_test
from affinity_search.storage.trials.seeds import run_seed
from affinity_search.studies.model.parameters import Params
from affinity_search.studies.model.spec import StudySpec

if TYPE_CHECKING:  # only the worker that trains imports Keras
    from affinity_search.search.devices import Device
    from affinity_search.search.training.checkpoints import TrainingState
    from affinity_search.search.training.data.splits import Seen, Split
    from affinity_search.search.training.fit import EpochScore, Trainer
    from affinity_search.search.training.networks.features import Features


class StudyTrainer:
    """Trains trials of one study, one after the other, with one compiled trainer."""

    def __init__(
        self,
        device: Device,
        spec: StudySpec,
        precision: str,
        data_dir: Path | None,
        *,
        embedding: int | None = None,
        seen: Seen | None = None,
    ) -> None:
        """Load the training images and those that score the epochs; `embedding` as in `NetworkConfig`.

        `seen` is told of each part of the data when it is read, and may refuse it. The test set is read later.

        Raises:
            DataError: the data set is not there, cannot be read, or has too few images.
        """
        # Import the training code here too: if it is broken, that is known before a place is claimed.
        from affinity_search.search.training import fit  # noqa: F401

        self._device = device
        self._spec = spec
        self._embedding = embedding
        self._precision = precision
        self._train, self._evaluation = read_splits(spec, data_dir, seen)
        self._draw, self._run = 0, 0
        self._whole: Split | None = None
        self._data_dir = data_dir
        self._seen = seen
        self._test: Split | None = None
        self._shares: tuple[float, ...] | None = None
        self._trainer: Trainer | None = None
        self._max_centers = 0
        self._earlier: tuple[EpochScore, ...] = ()  # of the trial's trainings before the present one
        self._batch = self._fitting_batch()

    def epochs(
        self,
        params: Params,
        seed: int,
        *,
        should_stop: Callable[[], bool] | None = None,
        max_centers: int | None = None,
        resume: TrainingState | None = None,
        runs: int = 1,
    ) -> Iterator[EpochScore]:
        """Train `runs` times, one after the other, each time with other validation images and another seed.

        `max_centers` is the largest m of the space now. If it has grown, the trainer is built anew.
        All else is as in `Trainer.epochs`. After OutOfMemoryError the next run builds a new trainer.
        """
        from affinity_search.search.training.errors import OutOfMemoryError

        sizes = [int(params[each.key]) for each in self._spec.head.required if each.sizes_arrays]
        room = max(max_centers or 1, *sizes, 1)
        whole = self._spec.training.epochs
        self._earlier = ()
        for run in range(runs):
            done = resume.epochs[run * whole : (run + 1) * whole] if resume else ()
            if len(done) == whole and run < runs - 1:  # of a finished training only the scores are needed
                yield from done
            else:
                begun = replace(resume, epochs=_shifted(done, 0, -run * whole)) if resume and done else None
                self._use(self._draw, run)
                trainer = self._fitting_trainer(room)
                done = ()
                try:
                    for score in trainer.epochs(params, run_seed(seed, run), should_stop=should_stop, resume=begun):
                        done += _shifted([score], run, run * whole)
                        yield done[-1]
                except OutOfMemoryError:
                    self._trainer = None  # its variables and functions would keep the memory
                    raise
            self._earlier += done

    def state(self) -> TrainingState:
        """The state of the present run after its last epoch, with the scores of the trial's earlier trainings."""
        assert self._trainer is not None, "train first"
        state, earlier = self._trainer.state(), self._earlier
        return replace(state, epochs=earlier + _shifted(state.epochs, self._run, len(earlier))) if earlier else state

    def go_back(self, state: TrainingState) -> None:
        """Go back to an earlier epoch of the present run."""
        assert self._trainer is not None, "train first"
        self._trainer.go_back(state)

    @property
    def note(self) -> str | None:
        """What differs from the study file, for people."""
        asked = self._spec.training.batch
        if asked == self._batch:
            return None
        return (
            f"training.batch is {asked}, but there are {len(self._train)} training images; batches have {self._batch}"
        )

    @property
    def image_bytes(self) -> int:
        """What the images that train and score take on the device."""
        return int(self._train.images.nbytes + self._evaluation.images.nbytes)

    @property
    def epoch_share(self) -> float:
        """How much of the present epoch's steps is done, from 0 to 1."""
        return 0.0 if self._trainer is None else self._trainer.epoch_share

    @property
    def class_sizes(self) -> tuple[int, ...]:
        """Training images of each class."""
        return self._train.counts(self._spec.data.source.n_classes)

    @property
    def minority(self) -> tuple[bool, ...]:
        """For each class: whether it is a small one."""
        return self._train.minority

    def use_draw(self, draw: int) -> None:
        """Train and score epochs on the images of another draw from the next run on; 0 is the search's own.

        Under `article` every draw has the search's images: the article repeats its runs with other seeds alone.
        """
        if self._spec.protocol != "article":
            self._use(draw, 0)

    def _use(self, draw: int, run: int) -> None:
        """Train and score epochs on the images of this draw, divided as for this training of a trial."""
        if (draw, run) == (self._draw, self._run):
            return
        from affinity_search.search.training.data.splits import load_train

        if self._whole is None:  # kept: to read it again for every draw would take longer than a short training
            self._whole = load_train(self._spec.data.source, self._data_dir)
        before = self._sizes()
        self._train, self._evaluation = read_splits(self._spec, self._data_dir, draw=draw, run=run, whole=self._whole)
        self._draw, self._run = draw, run
        if not _alike(before, self._sizes()):
            # Images that stay together may divide into other numbers.
            self._batch, self._trainer = self._fitting_batch(), None
        if self._trainer is not None:
            self._trainer.use(self._train, self._evaluation)

    def use_all(self) -> None:
        """Train on the validation images too from the next run on. What they score then says nothing.

        Under `article` there are none: the test images score the epochs.
        """
        if self._spec.protocol == "article":
            return
        from affinity_search.search.training.data.splits import joined

        self._train = joined(self._train, self._evaluation)
        self._batch, self._trainer = self._fitting_batch(), None

    def _fitting_batch(self) -> int:
        """Too few images for a batch would be filled up with copies. A TPU's cores take equal parts of a batch."""
        most, cores = len(self._train), self._device.replicas()
        return min(self._spec.training.batch, max(cores, most - most % cores))

    def _sizes(self) -> list[tuple[int, ...]]:
        """Of each class, the images to train on and those that score the epochs."""
        return [part.counts(self._spec.data.source.n_classes) for part in (self._train, self._evaluation)]

    def open_test(self) -> None:
        """Read the test set for `score_test`. Only final runs do so, before the first one.

        Raises:
            DataError: it is not there or cannot be read.
        """
        if self._test is None:
            self._test, self._shares = read_test(self._spec, self._data_dir, self._seen)
            self._trainer = None

    def score_test(self) -> dict[str, Any]:
        """Score the test set with the present weights.

        Under `holdout` all test images are scored, and weighted as the study imagines their classes; `plain` has the
        scores without weights. Under `article` the test images of small classes are as few as the study says.
        """
        assert self._trainer is not None, "train first"
        if self._shares is None:
            return self._trainer.score_test()[0].to_dict()
        weighted, plain = (scores.to_dict() for scores in self._trainer.score_test(self._shares, None))
        return weighted | {"plain": plain}

    def inference_model(self, about: Mapping[str, Any], adjustment: float | None = None) -> Any:
        """As `Trainer.inference_model`, of the present run."""
        assert self._trainer is not None, "train first"
        return self._trainer.inference_model(about, adjustment)

    def features(self) -> Features:
        """The features of the images that score the epochs, with the present weights. Call it during or after a run."""
        assert self._trainer is not None, "train first"
        return self._trainer.features()

    def _fitting_trainer(self, max_centers: int) -> Trainer:
        if self._trainer is None or max_centers > self._max_centers:
            self._trainer, self._max_centers = self._build(max_centers), max_centers
        return self._trainer

    def _build(self, max_centers: int) -> Trainer:
        from affinity_search.search.training.fit import Trainer, TrainingConfig
        from affinity_search.search.training.networks.building import NetworkConfig

        network, training = self._spec.network, self._spec.training
        settled = {
            "batch": self._batch,
            "precision": self._precision,
            "metric": self._spec.metric,
            "decays": "weight_decay" in self._spec.searched,
        }
        return Trainer(
            self._device,
            self._train,
            self._evaluation,
            self._spec.data.source,
            NetworkConfig(
                tuple(network.widths),
                network.depth,
                network.batch_norm_momentum,
                network.head,
                self._embedding,
                network.kind,
            ),
            # The study file has the same keys, and the check of it admits no other values.
            TrainingConfig(**training.model_dump() | settled),
            max_centers=max_centers,
            test=self._test,
        )


def _alike(before: list[tuple[int, ...]], after: list[tuple[int, ...]]) -> bool:
    """Whether a trainer fits both: as many images in all, and classes that differ by no more than rounding does."""
    pairs = [(old, new) for olds, news in zip(before, after, strict=True) for old, new in zip(olds, news, strict=True)]
    return sum(map(sum, before)) == sum(map(sum, after)) and all(abs(old - new) <= 1 for old, new in pairs)


def _shifted(epochs: Sequence[EpochScore], run: int, by: int) -> tuple[EpochScore, ...]:
    """The same epochs as those of this training of a trial, counted on by so many."""
    return tuple(replace(epoch, epoch=epoch.epoch + by, run=run) for epoch in epochs)
