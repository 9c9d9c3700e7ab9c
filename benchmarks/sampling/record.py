"""Records table.csv: real trials at random points, every epoch's score kept, for comparing samplers and pruners.

    make search-table DATA=DIR

The study in table.toml through the real command, with two workers of one thread each. Run it again to go on where it
was interrupted: the places are in the database under benchmarks/out.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence

from optuna.trial import FrozenTrial, TrialState

from affinity_search.search.view.pictures import history_of
from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.files import StudyFiles, default_root
from affinity_search.storage.study import load_study
from affinity_search.storage.trials.facts import TrialFacts
from benchmarks.commands import Command, machine
from benchmarks.sampling.table import PARAMETERS, STUDY, TABLE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    command = Command("search-table", parser.parse_args().data_dir)
    command.launch(str(STUDY), "--workers", "2")
    rows = write(command.url)
    print(f"{rows} trials in {TABLE.name}; {machine()}")


def write(url: str) -> int:
    """Every complete trial of the recorded study, by number; returns how many there are."""
    study = load_study(open_backend(url, create=False), "search-table")
    epochs = study.spec.training.epochs
    with TABLE.open("w", newline="") as file:
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
