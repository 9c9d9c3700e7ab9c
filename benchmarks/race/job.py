"""One job of the race: a bundled study as it is trained by all, and its images as files for those who are not us."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affinity_search.search.worker.images import read_splits
from affinity_search.studies.files import load
from affinity_search.studies.model.spec import StudySpec

ALIKE = ("training.precision=float32", "training.augment=false", 'pruner={kind="none"}')  # what the rivals do too


@dataclass(frozen=True)
class Job:
    """So many `trials` of a bundled `study` with `more` settings; `jit_compile` is for the rivals' networks."""

    title: str
    study: str
    trials: int
    more: tuple[str, ...] = ()
    needs_data: bool = False

    @property
    def settings(self) -> tuple[str, ...]:
        """As `--set` takes them."""
        return (*ALIKE, *self.more)

    def spec(self) -> StudySpec:
        return load(self.study, [*self.settings, f"trials={self.trials}"])

    def prepare(self, folder: Path, data_dir: Path | None, jit_compile: bool | str) -> None:
        """Write `job.json` and `images.npz`: the training and validation images of our own division."""
        spec = self.spec()
        train, validation = read_splits(spec, data_dir)
        np.savez(
            folder / "images.npz",
            x=train.images,
            y=train.labels,
            x_val=validation.images,
            y_val=validation.labels,
        )
        told = self.told(spec, train.images.shape[1:]) | {"jit_compile": jit_compile}
        (folder / "job.json").write_text(json.dumps(told))

    def told(self, spec: StudySpec, shape: tuple[int, ...]) -> dict[str, object]:
        """What a rival's script reads from `job.json`; all of it is the study's."""
        network, training, space = spec.network, spec.training, dict(spec.space.items() if spec.space else ())
        return {
            "trials": self.trials,
            "shape": list(shape),
            "widths": list(network.widths),
            "depth": network.depth,
            "momentum": network.batch_norm_momentum,
            "epochs": training.epochs,
            "batch": training.batch,
            "learning_rate": training.learning_rate,
            "drops": list(training.drops),
            "sigma": [space["sigma"].low, space["sigma"].high],
            "centers": space["n_centers"].high,
        }


DIGITS = Job("digits", "digits", 24)
CIFAR10 = Job(
    "reduced CIFAR-10",
    "cifar10",
    8,
    ("data.minority=40", "network.widths=[16,32,64]", "network.depth=1", "training.epochs=2"),
    needs_data=True,
)
