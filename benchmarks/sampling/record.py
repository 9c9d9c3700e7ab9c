"""Records a table of real trials at random points, every epoch's score kept, for comparing samplers and pruners.

    make search-table DATA=DIR                                  # both tables, on 2 cores
    python -m benchmarks.sampling.record mnist --data-dir DIR --devices gpu:0 --workers 6 --out DIR

The study in NAME.toml through the real command. Run it again to go on where it was interrupted: the places are in the
database under benchmarks/out.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from affinity_search.search.view.pictures import history_of
from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.files import StudyFiles, default_root
from affinity_search.storage.study import load_study
from affinity_search.storage.trials.facts import TrialFacts
from benchmarks.commands import Command, machine
from benchmarks.sampling.table import HERE, PARAMETERS, TABLES, study_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data-dir")
    parser.add_argument("--devices", default="cpu")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--out", type=Path, default=HERE, help="where the table is written")
    options = parser.parse_args()
    command = Command(f"table-{options.table}", options.data_dir)
    many = "--workers" if options.devices == "cpu" else "--workers-per-device"
    command.launch(str(study_of(options.table)), "--devices", options.devices, many, options.workers)
    table = options.out / f"{options.table}.csv"
    rows = write(command.url, f"table-{options.table}", table)
    print(f"{rows} trials in {table.name}; {options.devices}, {options.workers} workers; {machine()}")


def write(url: str, name: str, table: Path) -> int:
    """Every complete trial of the recorded study, by number; returns how many there are."""
    study = load_study(open_backend(url, create=False), name)
    epochs = study.spec.training.epochs
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*PARAMETERS, *(f"macro_f1_{epoch}" for epoch in range(epochs)), "seconds"])
        files = StudyFiles(default_root(study.backend.url), study.token)
        rows = list(_rows(study.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)), files))
        writer.writerows(rows)
    return len(rows)


def _rows(trials: Sequence[FrozenTrial], files: StudyFiles) -> Iterator[list[str]]:
    for trial in trials:
        history = history_of(files, trial)  # Optuna is told the best so far alone
        assert history is not None, f"trial {trial.number} has no history in {files.root}"
        scores = [epoch.scores.macro_f1 for epoch in history.epochs]
        yield [
            *(f"{trial.params[name]:.6g}" for name in PARAMETERS),
            *(f"{score:.4f}" for score in scores),
            f"{TrialFacts.of(trial).duration_s:.1f}",
        ]


if __name__ == "__main__":
    main()
