"""What a Python program may call; the commands are built on it.

    import affinity_search

    study = affinity_search.create("digits", trials=16, overrides={"training.epochs": 10})
    study.launch(workers=2)
    print(study.best().params, study.evaluate(draws=3)[0].test["macro_f1_mean"])

A failure with an outside cause is an `AffinitySearchError` or a `TrainingError`. Its message is one sentence for a
person. Importing this module imports neither Keras nor a database: each function imports what it needs.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from affinity_search.storage import DEFAULT_LEASE_S, DEFAULT_LIMIT_S, DEFAULT_STORAGE

if TYPE_CHECKING:
    from types import TracebackType

    from affinity_search.search.experiments.document import ComparisonModel
    from affinity_search.search.experiments.evaluate import Plan
    from affinity_search.search.experiments.statistics import Interval
    from affinity_search.search.worker.exits import Exit
    from affinity_search.storage.stored.agenda import Agenda
    from affinity_search.storage.stored.comparisons import StoredComparison
    from affinity_search.storage.study import StoredStudy
    from affinity_search.studies.model.parameters import Params

__all__ = ["Comparison", "Evaluated", "Study", "Trial", "compare", "create", "open"]


def say(message: str) -> None:
    """A line for the person, on stderr."""
    print(message, file=sys.stderr, flush=True)


class Progress(Protocol):
    """How a launch shows itself while it runs."""

    def show(self, agenda: Agenda, workers: Sequence[str]) -> None:
        """Called twice a second with the ids of the workers that run."""

    def say(self, message: str) -> None:
        """Called with each line for the person."""


@dataclass(frozen=True)
class Lines:
    """Progress as lines only."""

    say: Callable[[str], None]

    def show(self, agenda: Agenda, workers: Sequence[str]) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Trial:
    """One attempt at a place. What is unknown is None; epochs count from 1."""

    trial: int  # number of the Optuna trial
    place: int
    attempt: int | None
    state: str  # running, complete, pruned, failed, given back
    macro_f1: float | None  # of the best epoch, on the images that score the search
    params: Params
    best_epoch: int | None
    epochs: int  # trained so far
    seconds: float | None
    seed: int | None
    worker: str | None
    device: str | None
    reason: str | None  # why it failed or was given back


@dataclass(frozen=True)
class Evaluated:
    """A trial that was trained again on fresh draws and scored on the test images."""

    trial: int
    protocol: str
    params: Params
    macro_f1: float  # in the search
    search: float  # by the study's metric, in the search
    test: dict[str, Any]  # as in the export: macro_f1_mean, macro_f1_least, macro_f1_greatest, macro_f1, draws, …
    interval: Interval | None  # 95 %, of the mean of the study's metric over the draws
    tied: bool | None  # with the best of those that were judged together; None with too few draws


class _Launched(ABC):
    """What workers can be launched for."""

    @abstractmethod
    def _agenda(self) -> Agenda:
        """What they work on, as it is now."""

    def launch(
        self,
        *,
        workers: int | None = None,
        devices: str = "auto",
        per_device: int = 1,
        tpus: Sequence[str] = (),
        tpu_strategy: bool = False,
        on: str | None = None,
        data_dir: Path | None = None,
        files: Path | None = None,
        lease_s: float = DEFAULT_LEASE_S,
        outage_s: float = DEFAULT_LIMIT_S,
        track: str | None = None,
        notify: str | None = None,
        say: Callable[[str], None] = say,
    ) -> Exit:
        """Run worker processes until every place is used. Call it from the main thread, which gets Ctrl-C and SIGTERM.

        A comparison's places are those of its searches, and then those of its final runs. `devices` is as for
        `launch --devices`. `workers` is the number of workers on the CPU. `per_device` is the number of workers that
        share one GPU. `tpus` are names of TPUs elsewhere. Each TPU chip here has a worker, or with
        `tpu_strategy` one worker has all of them. `on` is the address of a Ray cluster.
        A worker that is silent for `lease_s` seconds loses its place. Workers wait `outage_s` seconds for a database
        that does not answer. `track` ("mlflow" or "mlflow=ADDRESS") and `notify` (a URL) are as for `launch`: a
        process of its own sends finished trials and news there.

        Returns:
            `Exit.DONE`, also where `[stop]` closed places; `Exit.NO_SCORE` if every trial failed; `Exit.STOPPED` if it
            was asked to stop before the end.

        Raises:
            WorkersDieError, DeviceError, DataError, StorageError: no worker can work here; the message says why.
            TrackingError: `track` or `notify` is no address.
        """
        from affinity_search.search.api.launching import Launching
        from affinity_search.search.api.preparing import prepare
        from affinity_search.search.launch.tracking.addresses import Sending
        from affinity_search.search.worker.stopping import StopSignals

        where = workers, devices, per_device, tuple(tpus), on
        how = data_dir, files, lease_s, outage_s, tpu_strategy
        asked = Launching(*where, *how, Sending.asked(track, notify))
        with StopSignals() as signals:
            return prepare(self._agenda(), asked, say).run(Lines(say), signals)


@dataclass(frozen=True)
class Study(_Launched):
    """A stored study: a definition, its budget of places, and the trials that used them. A context manager, too."""

    stored: StoredStudy

    @property
    def name(self) -> str:
        return self.stored.name

    def trials(self) -> list[Trial]:
        """Every attempt at a place, by number."""
        from affinity_search.storage.stored.listing import trial_rows

        return [Trial(**row) for row in trial_rows(self._now())]

    def best(self, top: int = 1) -> list[Trial]:
        """The `top` best trials, the best first.

        Raises:
            NothingToExportError: no trial has a value yet.
        """
        from affinity_search.storage.results.export import best_trials

        numbered = {trial.trial: trial for trial in self.trials()}
        return [numbered[found.trial.number] for found in best_trials(self._now(), top)]

    def plan_evaluation(self, *, top: int = 1, draws: int = 5) -> Plan:
        """What `evaluate` would train. Raises NothingToExportError if no trial has a value yet."""
        from affinity_search.search.experiments.evaluate import plan

        return plan(self._now(), top=top, draws=draws)

    def evaluate(
        self, *, top: int = 1, draws: int = 5, planned: Plan | None = None, say: Callable[[str], None] = say, **how: Any
    ) -> list[Evaluated]:
        """Train the `top` best trials again on `draws` fresh draws, and score the test images.

        A draw is a fresh choice of the small classes' training images, of the validation images and of the seed. The
        runs are planned places of a sibling study, so `how` they run is as in `launch`: `workers`, `devices`, …
        `planned` is a plan from `plan_evaluation`. Just that plan is trained: another trial may have become the best
        since. Stored scores are not trained again. The study records who opened the test set, and when.

        Returns:
            The trials, the best mean first.

        Raises:
            NothingToExportError: no trial has a value yet, or no final run has a score.
            WorkersDieError, DeviceError, DataError, StorageError: no worker can work here; the message says why.
        """
        from affinity_search.search.experiments.evaluate import results
        from affinity_search.storage.errors import NothingToExportError

        planned = planned or self.plan_evaluation(top=top, draws=draws)
        if planned.trainings:
            Study(planned.made()).launch(say=say, **how)
        found = [Evaluated(**result) for result in results(planned) if result["test"] is not None]
        if not found:
            raise NothingToExportError(f"study {self.name!r}: no final run has a score")
        return found

    def export(self, top: int | None = None) -> dict[str, Any]:
        """The best trial as plain values, ready for JSON; with `top`, also a list of the best. See `schema_text`.

        Raises:
            NothingToExportError: no trial has a value yet.
        """
        from affinity_search.search.experiments.evaluate import contenders
        from affinity_search.storage.results.export import export, to_plain

        study = self._now()
        return to_plain(export(study, top, contenders(study)))

    def _agenda(self) -> Agenda:
        from affinity_search.storage.stored.agenda import OneStudy

        return OneStudy(self._now())

    def _now(self) -> StoredStudy:
        """The study as it is now: since it was opened, workers may have settled the precision, and others may have
        widened the space.
        """
        return self.stored.refreshed()

    def close(self) -> None:
        """Close the connections to the database."""
        self.stored.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open(name: str, storage: str = DEFAULT_STORAGE, *, read_only: bool = False) -> Study:  # noqa: A001 - as files are
    """The stored study of that name. With `read_only` it cannot change the database.

    Raises:
        StorageError: the database is not there or cannot be opened.
        StudyNotFoundError: the database has no such study; the message names the studies that it has.
    """
    from affinity_search.storage.database.backend import open_backend
    from affinity_search.storage.study import load_study

    backend = open_backend(storage, create=False, read_only=read_only)
    try:
        return Study(load_study(backend, name))
    except BaseException:
        backend.close()
        raise


def points_of(name: str, storage: str = DEFAULT_STORAGE, *, top: int = 1) -> str:
    """An override for `create`: the settings of a stored study's `top` best trials, to be tried first.

    Raises:
        StudyNotFoundError: the database has no such study.
        NothingToExportError: no trial has a value yet.
    """
    from affinity_search.studies.model.writing import value_text

    with open(name, storage, read_only=True) as study:
        points = [dict(trial.params) for trial in study.best(top)]
    return f"points={value_text(points)}"


def create(
    source: str,
    storage: str = DEFAULT_STORAGE,
    *,
    name: str | None = None,
    trials: int | None = None,
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
    data_dir: Path | None = None,
    into_existing: bool = False,
    examine: bool = True,
    say: Callable[[str], None] = say,
) -> Study:
    """Create a study, or continue the stored one of the same name, and run nothing.

    `source` is a study file (.toml), a bundled study's name or a stored one's. `overrides` are keys of the study file
    with their values, `{"training.epochs": 5}` or `["training.epochs=5"]`. `say` is told what was created or changed.
    With `examine` false only the workers check the images.

    Raises:
        StudyFileError: every mistake in the file and the overrides at once.
        DataError: the images are missing, or the study was trained on others.
        StudyMismatchError: the stored study of that name has another definition.
        StorageError: the database cannot be opened or written.
    """
    from affinity_search.search.api.opening import Asked, open_storage_for, open_study

    asked = Asked.of(source, name, _assignments(overrides), trials, data_dir)
    backend = open_storage_for(storage, asked, into_existing=into_existing)
    try:
        stored, notes = open_study(backend, asked, examine=examine)
    except BaseException:
        backend.close()
        raise
    for note in notes:
        say(note)
    return Study(stored)


@dataclass(frozen=True)
class Comparison(_Launched):
    """A stored comparison: contestants, each with a search and with final runs of the settings that it found."""

    stored: StoredComparison

    @property
    def name(self) -> str:
        return self.stored.name

    def _agenda(self) -> Agenda:
        return self.stored.refreshed()

    def results(self) -> ComparisonModel:
        """What it has found so far: verdicts, and all that is needed to check them."""
        from affinity_search.search.experiments.compare import results

        return results(self.stored.refreshed())


def compare(
    source: str,
    storage: str = DEFAULT_STORAGE,
    *,
    heads: Sequence[str] | None = None,
    name: str | None = None,
    trials: int | None = None,
    draws: int | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
    data_dir: Path | None = None,
    say: Callable[[str], None] = say,
) -> Comparison:
    """Create a comparison, or go on with the stored one, and run nothing. All is as for the command of this name.

    Raises:
        StudyFileError: every mistake in the file and the arguments at once.
        DataError: the images are missing. StorageError: the database cannot be opened or written.
        StudyMismatchError: the stored comparison of that name is another one.
    """
    from affinity_search.search.api.comparing import open_comparison

    asked = {"heads": heads, "name": name, "trials": trials, "draws": draws, "metric": metric, "baseline": baseline}
    return Comparison(open_comparison(source, storage, asked, _assignments(overrides), data_dir, say))


def _assignments(overrides: Mapping[str, Any] | Sequence[str] | None) -> list[str]:
    from affinity_search.studies.model.writing import value_text

    if isinstance(overrides, Mapping):
        return [f"{key}={'none' if value is None else value_text(value)}" for key, value in overrides.items()]
    return list(overrides or ())
