"""`affinity-search studies`: the bundled study files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.options import AsJson, DataDir, Overrides, console
from affinity_search.search.cli.plain import PlainCommand

if TYPE_CHECKING:
    from affinity_search.studies.model.spec import StudySpec

EXAMPLES = (
    "affinity-search studies",
    "affinity-search studies show mnist",
)

app = typer.Typer(help="List the bundled studies, or show one.", pretty_exceptions_enable=False)
FEW_IMAGES = 20
FEW_NAMED = 10  # classes


@app.callback(invoke_without_command=True)
def list_studies(context: typer.Context, as_json: AsJson = False) -> None:
    """List the bundled studies, one line each."""
    if context.invoked_subcommand is not None:
        return
    from affinity_search.studies import bundled

    summaries = {name: bundled.summary(name) for name in bundled.names()}
    if as_json:
        typer.echo(json.dumps(summaries, indent=2))
        return
    width = max(map(len, summaries))
    for name, summary in summaries.items():
        typer.echo(f"{name:<{width}}  {summary}")


@app.command(cls=PlainCommand)
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A bundled study or a study file.")],
    data_dir: DataDir = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Print a study file; with --data-dir (or a set that needs none) also its images per class."""
    from affinity_search.studies import bundled
    from affinity_search.studies.files import load, read

    spec = load(name, overrides or ())
    if spec.data.own:
        from affinity_search.search.worker.images import folder_for, with_found

        data_dir = folder_for(spec, data_dir, None, lambda _: None)
        spec = with_found(spec, data_dir)
    counted = data_dir is not None or spec.data.source.part_of is not None
    counts, minority = _counts(spec, data_dir) if counted else (None, ())
    if as_json:
        typer.echo(json.dumps({"definition": spec.to_dict(), "images": counts}, indent=2))
        return
    if overrides:
        typer.echo(spec.to_toml(), nl=False)  # the comments are about the file, not about the overrides
    else:
        typer.echo(bundled.text(name) if name in bundled.names() else read(name), nl=False)
    if counts:
        _print_counts(spec, counts, minority)


def _counts(spec: StudySpec, data_dir: DataDir) -> tuple[dict[str, list[int]], tuple[bool, ...]]:
    """Images of each class by part, and which classes are small.

    The test part's labels are counted, its images are not looked at.
    """
    from affinity_search.search.training.data.splits import test_split
    from affinity_search.search.worker.images import read_splits

    train, scored = read_splits(spec, data_dir)
    test = test_split(spec.data.source, spec.data.minority, data_dir, whole=spec.data.own)
    parts = (
        {"training": train, "test": test}
        if spec.protocol == "article"
        else {"training": train, "validation": scored, "test": test}
    )
    return {part: list(split.counts(spec.data.source.n_classes)) for part, split in parts.items()}, train.minority


def _print_counts(spec: StudySpec, counts: dict[str, list[int]], minority: Sequence[bool]) -> None:
    from affinity_search.search.view.tables import Column, Fitted

    names = spec.data.source.classes
    classes = range(len(names))
    columns = [Column("class"), *(Column(part, right=True) for part in counts)]
    rows = [
        [f"{names[number]}{'*' if minority[number] else ''}", *(str(row[number]) for row in counts.values())]
        for number in classes
    ]
    out = console()
    out.print(Fitted(columns, rows, f"images per class (protocol {spec.protocol})"))
    out.print("* minority class", style="dim")
    few = [number for number in classes if counts.get("validation", [FEW_IMAGES] * len(classes))[number] < FEW_IMAGES]
    if few:
        where = ", ".join(names[number] for number in few)
        where = where if len(few) <= FEW_NAMED else f"{len(few)} of {len(classes)} classes"
        more = "" if spec.data.minority is None else "data.minority or "
        out.print(
            f"warning: fewer than {FEW_IMAGES} validation images of {where}. Their F1 moves in large steps, so the "
            f"search may choose by luck; raise {more}data.validation",
            style="yellow",
        )
