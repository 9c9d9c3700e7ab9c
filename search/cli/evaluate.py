"""`affinity-search evaluate`: the only reader of the test set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.options import DEFAULT_STORAGE, AsJson, DataDir, Storage, StudyName, console, opened

if TYPE_CHECKING:
    from storage.study import StoredStudy


def evaluate(
    study: StudyName,
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, help="Evaluate the K best trials.")] = 1,
    seeds: Annotated[int, typer.Option("--seeds", metavar="S", min=1, help="Retrain each with S fresh seeds.")] = 5,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, gpu:0 or tpu.")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default all.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Retrain the best trials with fresh seeds and score the test set.

    Under holdout the validation images choose the epoch, and the test set is scored once a seed.
    """
    from search.accelerators import one_device
    from search.evaluation import evaluate_best
    from search.worker import WorkerOptions
    from storage.study import load_study

    stored = load_study(opened(storage), study)
    results = evaluate_best(stored, WorkerOptions(one_device(device), threads, data_dir), top=top, seeds=seeds)
    if as_json:
        typer.echo(json.dumps(results, indent=2))
    else:
        _show(stored, results)


def _show(stored: StoredStudy, results: list[dict[str, Any]]) -> None:
    from search.fitting import Column, Fitted
    from search.view import params_text

    columns = [Column("trial", right=True), Column("parameters", rank=3), Column("search", right=True, rank=2)]
    columns += [Column(name, right=True, rank=rank) for name, rank in (("mean", 0), ("least", 1), ("greatest", 1))]
    columns.append(Column("seeds", right=True))
    rows = []
    for result in results:
        test = result["test"]
        scores = [test[f"macro_f1_{which}"] for which in ("mean", "least", "greatest")]
        shown = [f"{score:.4f}" for score in (result["macro_f1"], *scores)]
        rows.append([str(result["trial"]), params_text(result["params"]), *shown, str(len(test["seeds"]))])
    console(data=True).print(Fitted(columns, rows, f"test macro F1 ({stored.spec.protocol})"))
