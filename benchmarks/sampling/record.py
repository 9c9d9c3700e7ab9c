"""Records a table of real trials at random points, every epoch's score kept, for comparing samplers and pruners.

    make search-table DATA=DIR                                  # both tables, on 2 cores
    python -m benchmarks.sampling.record mnist --data-dir DIR --devices gpu:0 --workers 6 --out DIR
    python -m benchmarks.sampling.record mnist --data-dir DIR --rows 120

The study in NAME.toml through the real command. Run it again to go on where it was interrupted: the places are in the
database under benchmarks/out. Row r is place r of the study, whose point follows from the study's seed and r. So a
table that is there is kept and goes on at the next place, on whatever machine.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import update

from affinity_search.search import api
from affinity_search.search.view.pictures import history_of
from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.files import StudyFiles, default_root
from affinity_search.storage.study import StoredStudy, load_study
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
    parser.add_argument("--rows", type=int, help="how many rows the table shall have (default: the study's trials)")
    options = parser.parse_args()
    name, table = f"table-{options.table}", options.out / f"{options.table}.csv"
    command = Command(name, options.data_dir)
    with api.create(str(study_of(options.table)), command.url, trials=options.rows, examine=False) as study:
        pass_over(study.stored, len(rows_of(table)))
    many = "--workers" if options.devices == "cpu" else "--workers-per-device"
    command.launch(name, "--devices", options.devices, many, options.workers)
    rows = write(command.url, name, table)
    print(f"{rows} trials in {table.name}; {options.devices}, {options.workers} workers; {machine()}")


def rows_of(table: Path) -> list[list[str]]:
    """The recorded rows as text; none where there is no table yet."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.reader(file))[1:]


def pass_over(study: StoredStudy, count: int) -> None:
    """No worker trains the first `count` places: their rows are recorded."""
    places = tables.places
    recorded = update(places).where(
        places.c.token == study.token, places.c.number < count, places.c.state == PlaceState.FREE
    )
    with study.backend.engine.begin() as connection:
        connection.execute(recorded.values(state=PlaceState.COMPLETE))


def write(url: str, name: str, table: Path) -> int:
    """Append the study's complete places that follow the table's rows without a gap; returns the number of rows."""
    study = load_study(open_backend(url, create=False), name)
    epochs = study.spec.training.epochs
    files = StudyFiles(default_root(study.backend.url), study.token)
    complete = study.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    by_place = {TrialFacts.of(trial).place: trial for trial in complete}
    rows = rows_of(table)
    while len(rows) in by_place:
        rows.append(_row(by_place[len(rows)], files))
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*PARAMETERS, *(f"macro_f1_{epoch}" for epoch in range(epochs)), "seconds"])
        writer.writerows(rows)
    return len(rows)


def _row(trial: FrozenTrial, files: StudyFiles) -> list[str]:
    history = history_of(files, trial)  # Optuna is told the best so far alone
    assert history is not None, f"trial {trial.number} has no history in {files.root}"
    scores = [epoch.scores.macro_f1 for epoch in history.epochs]
    return [
        *(f"{trial.params[name]:.6g}" for name in PARAMETERS),
        *(f"{score:.4f}" for score in scores),
        f"{TrialFacts.of(trial).duration_s:.1f}",
    ]


if __name__ == "__main__":
    main()
