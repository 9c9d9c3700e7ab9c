"""`affinity-search trials`: every trial of a study, as a table, CSV, Parquet or JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affinity_search.search.cli.options import AsJson, Storage, StudyName, console, home_path, say
from affinity_search.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.view.tables import Fitted
    from affinity_search.studies.heads import HeadDefinition


EXAMPLES = (
    "affinity-search trials digits",
    "affinity-search trials digits --csv trials.csv",
)


def trials(
    study: StudyName,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", parser=home_path, help="Write CSV to this file; - is stdout."),
    ] = None,
    parquet_file: Annotated[
        Path | None,
        typer.Option("--parquet", metavar="FILE", parser=home_path, help="Write a typed table with epochs' scores."),
    ] = None,
    as_json: AsJson = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """List every trial of a study: parameters, state, score, epochs, seconds, seed, worker."""
    from affinity_search.search import api
    from affinity_search.search.cli.commands.export import write_atomically

    if sum(map(bool, (csv_file, parquet_file, as_json))) > 1:
        raise typer.BadParameter("--csv, --parquet and --json contradict each other")
    if parquet_file is not None:
        _write_parquet(parquet_file, study, storage)
        return
    with api.open(study, storage, read_only=True) as opened:
        rows, spec = [asdict(trial) for trial in opened.trials()], opened.stored.spec
    names = spec.searched
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif csv_file is None:
        console(data=True).print(_table(rows, names, spec.head))
    elif str(csv_file) == "-":
        typer.echo(_csv(rows, names), nl=False)
    else:
        write_atomically(csv_file, _csv(rows, names))
        say(f"wrote {len(rows)} trials to {csv_file}")


def _write_parquet(path: Path, study: str, storage: str) -> None:
    from affinity_search.search import api
    from affinity_search.search.cli import parquet
    from affinity_search.storage.stored.listing import detailed_rows

    if str(path) == "-":
        raise typer.BadParameter("--parquet writes a file; - is not one")
    parquet.require_pyarrow()
    with api.open(study, storage, read_only=True) as opened:
        rows = detailed_rows(opened.stored)
        parquet.write(path, opened.stored, rows)
    say(f"wrote {len(rows)} trials to {path}")


def _csv(rows: list[dict[str, Any]], names: list[str]) -> str:
    """One column for each key. `params` becomes one column for each parameter. An unknown value is empty."""
    keys = ["trial", "place", "attempt", "state", "macro_f1", *names]
    keys += ["best_epoch", "epochs", "seconds", "seed", "worker", "device", "reason"]
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | row["params"] for row in rows)
    return text.getvalue()


def _table(rows: list[dict[str, Any]], names: list[str], head: HeadDefinition) -> Fitted:
    from affinity_search.search.view.tables import Column, Fitted
    from affinity_search.search.view.terminal import duration_text

    right = [Column(head.symbol(name), right=True, rank=1) for name in names]
    columns = [Column("trial", right=True), Column("state"), Column("macro F1", right=True), *right]
    columns += [
        Column("best epoch", right=True, rank=4),
        Column("epochs", right=True, rank=3),
        Column("time", right=True, rank=2),
        Column("seed", right=True, rank=7),
        Column("worker", rank=5),
        Column("why", rank=6),
    ]
    shown = [
        [
            str(row["trial"]),
            row["state"],
            "-" if row["macro_f1"] is None else f"{row['macro_f1']:.4f}",
            *(f"{row['params'][name]:.4g}" if name in row["params"] else "-" for name in names),
            "-" if row["best_epoch"] is None else str(row["best_epoch"]),
            str(row["epochs"]),
            "-" if row["seconds"] is None else duration_text(row["seconds"]),
            str(row["seed"]),
            row["worker"] or "-",
            row["reason"] or "",
        ]
        for row in rows
    ]
    return Fitted(columns, shown)
