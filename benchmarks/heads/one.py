"""One contestant: a search over the head's recommended space, then its best settings trained anew on fresh draws.

A draw is another choice of the small classes' training images, of the validation images and of the seed. The whole test
set is scored by these final runs alone.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from affinity_search.search import api, devices
from affinity_search.search.experiments.evaluate import judge
from affinity_search.search.worker.images import StudyImages
from affinity_search.search.worker.loop import say
from affinity_search.search.worker.setup import WorkerOptions, work
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.trials.seeds import evaluation_seed

HERE = Path(__file__).parent


def contest(
    dataset: str, head: str, *, draws: int, device: str, data_dir: Path, out: Path, overrides: list[str]
) -> dict[str, Any]:
    """Search and judge one head on one set; returns what is written to its file in `out`."""
    file = out / f"{dataset}-{head}.json"
    claimed = devices.configure(device, 1)
    started = time.monotonic()
    wanted = [f"network.head={head}", *overrides]
    source, url = str(HERE / f"{dataset}.toml"), f"sqlite:///{out / dataset}-{head}.db"
    with api.create(source, url, name=f"{dataset}-{head}", overrides=wanted, data_dir=data_dir, examine=False) as study:
        work(study.stored, WorkerOptions(device, threads=1, data_dir=data_dir, worker_id="one"))
        best, stored = study.best()[0], study.stored.refreshed()
        found: dict[str, Any] = {"set": dataset, "head": head, "params": best.params, "search": best.macro_f1}
        found |= {"search_s": time.monotonic() - started, "draws": {}}
        images = StudyImages(stored, data_dir, say)
        trainer = StudyTrainer(claimed, stored.spec, stored.settled_precision, images.folder, seen=images)
        trainer.open_test()
        for draw in range(1, draws + 1):
            trainer.use_draw(draw)
            seed = evaluation_seed(stored.spec.seed, draw)
            found["draws"][str(draw)] = judge(stored.spec, trainer, best.params, seed, f"draw {draw}")
            file.write_text(json.dumps(found | {"seconds": time.monotonic() - started}, indent=1))
    return found
