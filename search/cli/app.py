"""The commands, gathered. Each imports what it needs when it runs, so that `--help` is instant."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli import create, dashboard, doctor, embed, evaluate, export, launch, status, studies, worker
from search.exits import Exit

app = typer.Typer(
    name="affinity-search",
    help="Search lambda, sigma and n_centers of the affinity loss on imbalanced image classes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes. " + " ".join(f"{int(one)}: {one.meaning}" for one in Exit),
)
app.add_typer(studies.app, name="studies")
app.command()(create.create)
app.command()(launch.launch)
app.command()(worker.worker)
app.command()(status.status)
app.command()(evaluate.evaluate)
app.command()(export.export)
app.command()(embed.embed)
app.command()(dashboard.dashboard)
app.command()(doctor.doctor)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("affinity-search"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the command itself; its help stands above."""
