"""All commands. Each imports what it needs when it runs, so `--help` is fast."""

from __future__ import annotations

from types import ModuleType
from typing import Annotated

import typer

from affinity_search.search.cli.commands import (
    compare,
    create,
    dashboard,
    delete,
    doctor,
    embed,
    evaluate,
    export,
    init,
    launch,
    plan,
    predict,
    rename,
    report,
    status,
    stop,
    studies,
    track,
    train,
    trials,
    verify,
    worker,
)
from affinity_search.search.cli.plain import PlainCommand, PlainGroup
from affinity_search.search.worker.exits import Exit
from affinity_search.studies.heads import DEFAULT, HEADS

app = typer.Typer(
    cls=PlainGroup,
    name="affinity-search",
    help=f"Search {HEADS[DEFAULT].keys} of the {DEFAULT} loss on imbalanced image classes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes. " + " ".join(f"{int(one)}: {one.meaning}" for one in Exit),
)
# In the order of `--help`. A command is the function with the name of its module.
COMMANDS = (
    init,
    compare,
    plan,
    create,
    launch,
    worker,
    status,
    trials,
    track,
    stop,
    rename,
    delete,
    evaluate,
    report,
    verify,
    export,
    train,
    predict,
    embed,
    dashboard,
    doctor,
)


def _examples(module: ModuleType) -> str:
    return "\n\n".join(["Examples:", *module.EXAMPLES])


app.add_typer(studies.app, name="studies", cls=PlainGroup, epilog=_examples(studies))
for module in COMMANDS:
    function = getattr(module, module.__name__.rpartition(".")[2])
    app.command(cls=PlainCommand, epilog=_examples(module))(function)


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
