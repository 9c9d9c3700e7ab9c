"""Trainings in a process of their own: the exact outcome of each, and what their steps cost.

python -m benchmarks.gpu_check.probe '{"device": "gpu:0", …}'    # the fields of `Asked`; its last line is JSON
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affinity_search.search.devices import Device

PARAMS = {"lambda": 0.43, "sigma": 90.0, "n_centers": 1}  # the article's
# What XLA is told: as the program does it; only without operations that differ from run to run; nothing.
OPERATIONS = {
    "deterministic": "--xla_gpu_deterministic_ops=true",
    "autotuned": "--xla_gpu_exclude_nondeterministic_ops=true",
    "free": "",
}


@dataclass(frozen=True)
class Asked:
    """One training of each case: (batch, precision)."""

    device: str  # as a worker is told
    study: str
    settings: list[str]
    cases: list[tuple[int, str]]
    data_dir: str | None = None
    operations: str = "deterministic"


class Watched:
    """A trainer's steps, whose time is added up."""

    def __init__(self, steps: Any) -> None:
        self._steps = steps
        self.seconds = 0.0

    def run(self, *call: Any) -> float:
        began = time.perf_counter()
        loss = float(self._steps.run(*call))  # waits for the device
        self.seconds += time.perf_counter() - began
        return loss


def start_jax(platform: str, operations: str) -> None:
    """Let XLA read its settings before the program adds its own; a compilation makes sure that all of it has."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {OPERATIONS[operations]}".strip()
    os.environ |= {"JAX_PLATFORMS": platform, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    import jax

    float(jax.jit(lambda number: number + 1)(1.0))


def digest(variables: Mapping[str, Any]) -> str:
    """Of every bit of the training's state."""
    import numpy as np

    found = hashlib.sha256()
    for path in sorted(variables):
        found.update(path.encode() + np.asarray(variables[path]).tobytes())
    return found.hexdigest()


def train(device: Device, asked: Asked, batch: int, precision: str) -> dict[str, Any]:
    """All its epochs; the seconds of those after the first, which compiles."""
    from pathlib import Path

    from affinity_search.search.worker.study_trainer import StudyTrainer
    from affinity_search.studies.files import load

    watched: list[Watched] = []
    make = device.training_steps

    def watching(model: Any, size: int) -> Watched:
        watched.append(Watched(make(model, size)))
        return watched[-1]

    device.training_steps = watching  # type: ignore[method-assign]
    spec = load(asked.study, [*asked.settings, f"training.batch={batch}"])
    trainer = StudyTrainer(device, spec, precision, Path(asked.data_dir) if asked.data_dir else None)
    began, scores, epoch_s, steps_s = time.perf_counter(), [], [], [0.0]
    for epoch in trainer.epochs(PARAMS, 1):
        scores.append((epoch.loss, epoch.scores.macro_f1))
        epoch_s.append(epoch.duration_s)
        steps_s.append(watched[-1].seconds)
    device.training_steps = make  # type: ignore[method-assign]
    images = sum(trainer.class_sizes)
    return {
        "batch": batch,
        "precision": precision,
        "scores": scores,
        "weights": digest(trainer.state().variables),
        "first_epoch_s": epoch_s[0],
        "epoch_s": epoch_s[1:],
        "steps_s": [later - before for before, later in pairwise(steps_s[1:])],
        "images": -(-images // batch) * batch,  # the last batch is filled up
        "whole_s": time.perf_counter() - began,
    }


def main() -> None:
    asked = Asked(**json.loads(sys.argv[1]))
    from affinity_search.search import devices

    if asked.operations != "deterministic":
        start_jax("cpu" if asked.device == "cpu" else "cuda", asked.operations)
    device = devices.configure(asked.device)
    cases = [train(device, asked, batch, precision) for batch, precision in asked.cases]
    print(json.dumps({"device": device.describe(), "cases": cases}))


if __name__ == "__main__":
    main()
