"""Whether bfloat16 costs any F1: paired seeds on real data, float32 against mixed_bfloat16 on this machine.

    make precision-pairs DATA=DIR

MNIST with the study file's network, n = 20, 6 epochs, `holdout` (validation macro F1 of the best epoch): each seed is
trained in both precisions. The difference of the pairs is held against the spread of the seeds within one precision.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from commands import machine

from affinity_search.search import devices

EPOCHS, MINORITY, SEEDS = 6, 20, 6
PARAMS = {"lambda": 0.0612, "sigma": 27.8, "n_centers": 2}  # what a search found: the table of docs/scores.md


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    data_dir = parser.parse_args().data_dir
    device = devices.configure("cpu")
    from affinity_search.search.training.results import TrainingResult
    from affinity_search.search.worker.study_trainer import StudyTrainer
    from affinity_search.studies.files import load

    spec = load("mnist", [f"training.epochs={EPOCHS}", f"data.minority={MINORITY}"])
    found: dict[str, list[float]] = {}
    for precision in ("float32", "mixed_bfloat16"):
        trainer = StudyTrainer(device, spec, precision, data_dir)
        found[precision] = [1 - TrainingResult(tuple(trainer.epochs(PARAMS, seed))).value for seed in range(SEEDS)]
        print(f"{precision}: {', '.join(f'{score:.4f}' for score in found[precision])}", flush=True)
    differences = [half - full for full, half in zip(*found.values(), strict=True)]
    print("\n| precision | mean macro F1 | spread of the seeds (standard deviation) |\n|---|---|---|")
    for precision, scores in found.items():
        print(f"| {precision} | {statistics.mean(scores):.4f} | {statistics.stdev(scores):.4f} |")
    error = statistics.stdev(differences) / SEEDS**0.5
    print(f"\nbfloat16 − float32, {SEEDS} pairs: {statistics.mean(differences):+.4f} ± {error:.4f} (standard error)")
    print(machine())


if __name__ == "__main__":
    main()
