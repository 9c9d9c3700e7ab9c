"""`affinity-search export`: the best parameters as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from affinity_search.search.cli.options import Storage, home_path, say
from affinity_search.storage import DEFAULT_STORAGE

EXAMPLES = (
    "affinity-search export digits -o best.json",
    "affinity-search export digits --top 3",
)


def export(
    study: Annotated[str | None, typer.Argument(metavar="STUDY", help="Name of a stored study or comparison.")] = None,
    top: Annotated[
        int | None, typer.Option("--top", metavar="K", min=1, max=100_000, help="Add a list of the K best trials.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", parser=home_path, help="Write to this file instead of stdout."),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of the export instead.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", hidden=True, help="Changes nothing: the export is always JSON.")
    ] = True,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Print the best trial as one JSON object; of a comparison, the best contestant's, with the verdict."""
    from affinity_search.storage.results.export import schema_text

    if study is None and not schema:
        raise typer.BadParameter("name the study to export; `affinity-search status` lists them")
    text = schema_text() if schema or study is None else _exported(storage, study, top)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(output, text)
        say(f"wrote {output}")


def _exported(storage: str, study: str, top: int | None) -> str:
    from affinity_search.search import api
    from affinity_search.search.cli.options import opened as open_storage
    from affinity_search.storage.stored.comparisons import find_comparison

    backend = open_storage(storage, read_only=True)
    comparison = find_comparison(backend, study)
    if comparison is not None:
        from affinity_search.search.experiments.compare import winners

        return json.dumps(winners(comparison), indent=2) + "\n"
    backend.close()

    with api.open(study, storage, read_only=True) as opened:
        return json.dumps(opened.export(top), indent=2) + "\n"


def write_atomically(path: Path, text: str) -> None:
    """Write the whole file or leave the old one, so that no reader sees half a file. A device or pipe is written
    directly.
    """
    from affinity_search.storage.files import replacing

    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")
