"""The use of a search: a trial's settings, trained on all images but those of the test, as a model for one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affinity_search.search.experiments.embed import chosen as existing
from affinity_search.search.experiments.embed import described
from affinity_search.search.experiments.models.predict import Forward
from affinity_search.search.worker.images import StudyImages, read_test
from affinity_search.search.worker.loop import say
from affinity_search.search.worker.setup import WorkerOptions
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.database.runtime import user_at_host
from affinity_search.storage.errors import NothingToExportError
from affinity_search.storage.results.export import refuse_final
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialScores
from affinity_search.studies.model.parameters import Params

if TYPE_CHECKING:
    from affinity_search.search.devices import Device
    from affinity_search.search.training.data.splits import Split
    from affinity_search.search.training.results import EpochScore

BATCH = 256  # test images in one step


@dataclass(frozen=True)
class Settings:
    """Which trial's settings are trained, and for how many epochs."""

    trial: int
    params: Params
    seed: int
    epochs: int
    adjustment: float | None  # τ of the trial's best epoch, where the study adjusts


@dataclass(frozen=True)
class Trained:
    """A Keras model from images or vectors to class scores, and what its file says of it."""

    model: Any
    about: dict[str, Any]


def settings(study: StoredStudy, number: int | None, epochs: int | None) -> Settings:
    """Those of trial `number`, by default the best; for `epochs`, by default as many as its best epoch's number.

    Raises:
        NothingToExportError: there is no such trial with a score, the study holds final runs, or it has fewer epochs.
    """
    refuse_final(study)
    number = existing(study, number)
    trial, params, seed = described(study, number)
    scores = TrialScores.of(trial)
    if scores is None:
        raise NothingToExportError(
            f"trial {number} of study {study.name!r} ended without a score; leave --trial out for the best one"
        )
    most = study.spec.training.epochs
    if epochs is not None and epochs > most:
        raise NothingToExportError(
            f"{epochs} epochs are asked for, and the learning rate of study {study.name!r} ends after {most}; search "
            f"longer trainings under another name: launch STUDY --name NEW --set training.epochs={epochs}"
        )
    if study.spec.training.adjust and scores.adjustment is None:
        raise NothingToExportError(
            f"trial {number} of study {study.name!r} does not say how its scores were adjusted, as an earlier version "
            "trained it; search again under another name"
        )
    return Settings(number, params, seed, epochs or scores.best_epoch, scores.adjustment)


def train(
    study: StoredStudy, options: WorkerOptions, chosen: Settings, on_epoch: Callable[[EpochScore], None]
) -> Trained:
    """Train on all training and validation images of the study, with the trial's own seed, and check it on the test.

    The schedule of the learning rate (and of deferred re-weighting) is that of the study's whole training; it is left
    after the chosen number of epochs, because in the search the weights of the best epoch had come that far. Nothing
    is left that could choose an epoch: so the number is the trial's. Under `article` there are no validation images.
    The test images are read before the training, so that their lack is known. The study's history says who opened them.

    Raises:
        DataError, DeviceError: this machine cannot train the study. DivergedError: the loss became NaN.
        StorageError: the study has not been trained yet, or its history cannot be written.
    """
    from affinity_search.search import devices

    device = devices.configure(options.device, options.threads)
    images = StudyImages(study, options.data_dir, say)
    trainer = StudyTrainer(device, study.spec, study.settled_precision, images.folder, seen=images)
    trainer.use_all()
    study.record("opened", f"the test images, by {user_at_host()}, to check the model of trial {chosen.trial}")
    test, shares = read_test(study.spec, images.folder, images)
    for score in trainer.epochs(chosen.params, chosen.seed):
        on_epoch(score)
        if score.number == chosen.epochs:
            break
    about = _about(study.refreshed(), chosen, trainer.class_sizes, devices.versions())
    about["test"] = _scores(device, trainer.inference_model(about, chosen.adjustment), study, test, shares, about)
    told = f"{study.spec.score.label} {about['test'][study.spec.metric]:.4f} on the test images"
    study.record("trained", f"a model of trial {chosen.trial}, {chosen.epochs} epochs: {told}")
    return Trained(trainer.inference_model(about, chosen.adjustment), about)


def _about(
    study: StoredStudy, chosen: Settings, class_sizes: tuple[int, ...], versions: Mapping[str, str]
) -> dict[str, Any]:
    """What the file says: plain values, ready for JSON."""
    from affinity_search.search.training.networks.model_file import FORMAT

    spec, source = study.spec, study.spec.data.source
    shape = list(source.shape)
    kind = "vectors" if len(shape) == 1 else "images"
    return {
        "format": FORMAT,
        "study": study.name,
        "classes": list(source.classes),
        "input": {"kind": kind, "shape": shape, "values": "float32" if kind == "vectors" else "uint8, 0 to 255"},
        "outputs": "probabilities" if spec.head.logits else "similarities",
        "head": spec.head.name,
        "settings": asdict(chosen),
        "schedule_epochs": spec.training.epochs,
        "network": spec.network.model_dump(mode="json"),
        "training": spec.training.model_dump(mode="json") | {"precision": study.settled_precision},
        "protocol": spec.protocol,
        "metric": spec.metric,
        "data": _data(study) | {"train": list(class_sizes)},
        "fingerprint": study.fingerprint,
        "versions": dict(versions),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _data(study: StoredStudy) -> dict[str, Any]:
    """Where the images come from: of a path the name alone, and what they are known by."""
    data = study.spec.data
    parts = {"train": study.train_data, "test": study.test_data}
    digests = {part: json.loads(told)["digest"] for part, told in parts.items() if told}
    return {
        "set": data.set,
        "path": None if data.path is None else Path(data.path).name,
        "imbalance": data.imbalance_text,
        "sha256": data.found.digest if data.found else None,
        "sha256_by_part": digests,
    }


def _scores(
    device: Device,
    model: Any,
    study: StoredStudy,
    test: Split,
    shares: tuple[float, ...] | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Of the model on the test images, as final runs are scored; and of each class its recall and its images."""
    from affinity_search.search.training.metrics import score

    outputs = Forward(device, model, min(BATCH, len(test)))(test.images)
    found = score(
        test.labels,
        outputs.argmax(axis=1),
        len(about["classes"]),
        test.minority,
        class_sizes=about["data"]["train"],
        probabilities=outputs if about["outputs"] == "probabilities" else None,
        shares=shares,
    )
    told = found.to_dict()
    recalls = [
        row[label] / n if n else None for label, (row, n) in enumerate(zip(found.confusion, found.support, strict=True))
    ]
    return told | {"per_class_recall": recalls, "protocol": study.spec.protocol}
