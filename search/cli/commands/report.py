"""`affinity-search report`: what a comparison found, as a page, as Markdown or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.commands.compare import show
from affinity_search.search.cli.commands.export import write_atomically
from affinity_search.search.cli.options import AsJson, Storage, home_path, opened, say
from affinity_search.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.experiments.document import ComparisonModel

EXAMPLES = (
    "affinity-search report digits-comparison -o report.html",
    "affinity-search report digits-comparison --markdown",
)


def report(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Name of a stored comparison.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", parser=home_path, help="Write the report to this file: a page."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown: to stdout, or to the file.")] = False,
    as_json: AsJson = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of --json instead.")] = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Tell what a comparison found: verdicts, intervals, figures, and all that is needed to check them.

    It reads the storage and changes nothing. An unfinished comparison gives numbers, and says what is missing.
    """
    if sum((markdown, as_json, schema)) > 1:
        raise typer.BadParameter("--markdown, --json and --schema are different forms; give one of them")
    if schema:
        from affinity_search.search.experiments.document import schema_text

        _put(schema_text(), output)
        return
    if name is None:
        raise typer.BadParameter("name the comparison to report on")
    found = _found(storage, name)
    if output is None and not markdown and not as_json:
        show(found)
        return
    _put(_text(found, markdown=markdown, as_json=as_json), output)


def _found(storage: str, name: str) -> ComparisonModel:
    from affinity_search.search.experiments.compare import results
    from affinity_search.storage.stored.comparisons import load_comparison

    backend = opened(storage, read_only=True)
    try:
        return results(load_comparison(backend, name))
    finally:
        backend.close()


def _text(found: ComparisonModel, *, markdown: bool, as_json: bool) -> str:
    if as_json:
        return found.model_dump_json(indent=2) + "\n"
    if markdown:
        from affinity_search.search.experiments.report.markdown import markdown as written

        return written(found)
    from affinity_search.search.experiments.report.page import page

    return page(found)


def _put(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
        return
    write_atomically(output, text)
    say(f"wrote {output}")
