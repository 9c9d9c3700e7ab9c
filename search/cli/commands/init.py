"""`affinity-search init`: look at people's own images, and write a study file that suits them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.bar import bar
from affinity_search.search.cli.options import console, home_path, say

if TYPE_CHECKING:
    from affinity_search.search.api.starting import Look

EXAMPLES = (
    "affinity-search init cells/",
    "affinity-search init cells/ --group '^.{5}' --size 32 -o cells.toml",
)
MOST_ROWS = 40


def init(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            parser=home_path,
            help="A folder CLASS/… or train|validation|test/CLASS/…, or an .npz file of images or vectors.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", parser=home_path, help="Where the study file is written."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="PIXELS", help="Resize images to this side, or HEIGHTxWIDTH.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Images with an equal match in their file name stay in one part."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Image files that cannot be read are a mistake, instead of left out.")
    ] = False,
) -> None:
    """Look at your own images: a table of classes, what is doubtful, and a study file to begin with."""
    from affinity_search.search.api.starting import look_at, study_text, write_new

    file = output or Path(f"{data.resolve().stem if data.suffix else data.resolve().name}.toml")
    if file.exists():
        raise typer.BadParameter(f"{file} is there already; name another file with -o")
    with bar() as progress:
        look = look_at(data, _sides(size), group, progress, strict=strict)
    _tell(look)
    write_new(study_text(look, file.parent), file)
    say(f"wrote {file}")
    name = shlex.quote(str(file))
    typer.echo(f"next: affinity-search compare {name}")
    typer.echo(f"      affinity-search report {shlex.quote(file.stem + '-comparison')} -o report.html")


def _sides(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    from affinity_search.studies.model.tables.data import LARGEST_SIDE

    sides = size.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isdigit() and 4 <= int(side) <= LARGEST_SIDE for side in sides):
        raise typer.BadParameter(f"--size {size}: a number from 4 to {LARGEST_SIDE}, or two as in 32x48")
    return int(sides[0]), int(sides[-1])


def _tell(look: Look) -> None:
    from affinity_search.search.view.tables import Column, Fitted

    found = look.found
    parts = {"train": found.train, "validation": found.validation, "test": found.test}
    shown = {part: counts for part, counts in parts.items() if counts}
    measured = {each.name: each for each in look.sizes.classes} if look.sizes else {}
    columns = [Column("class"), *(Column(part, right=True) for part in shown)]
    columns += [Column("height", right=True), Column("width", right=True)] if measured else []
    rows = []
    for label, name in enumerate(found.classes[:MOST_ROWS]):
        about = measured.get(name)
        sides = [_range(about.height), _range(about.width)] if about else ["", ""] if measured else []
        rows.append([name, *(str(counts[label]) for counts in shown.values()), *sides])
    out = console()
    out.print(Fitted(columns, rows, f"{look.path}: {len(look.collection)} {_what(look)}"))
    if len(found.classes) > MOST_ROWS:
        out.print(f"and {len(found.classes) - MOST_ROWS} classes more", style="dim")
    if look.own.test is not None:
        out.print(
            f"no test part was given: {look.own.test:.0%} of each class are kept for the final scores", style="dim"
        )
    if look.collection.groups is not None:
        out.print(f"{len(set(look.collection.groups.tolist()))} groups; each stays in one part", style="dim")
    for doubt in look.doubts:
        out.print(f"doubtful: {doubt}", style="yellow", highlight=False, markup=False)


def _what(look: Look) -> str:
    shape = "×".join(map(str, look.found.shape))
    if look.kind == "features":
        return f"vectors of {shape} numbers"
    return f"images, read as {shape} (height, width, channels)"


def _range(sides: tuple[int, int, int]) -> str:
    low, median, high = sides
    return str(median) if low == high else f"{low}–{median}–{high}"
