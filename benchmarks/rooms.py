"""The house at a glance: its rooms, who imports whom, and how long functions and files are.

python -m benchmarks.rooms            # make rooms
python -m benchmarks.rooms --tree DIR # the lengths of another checkout, such as an earlier version
"""

from __future__ import annotations

import argparse
import ast
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent.parent
FLOORS = ("search", "storage", "studies")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=HERE)
    tree = parser.parse_args().tree
    if tree == HERE:
        print(*rooms(), sep="\n")
        print(*imports(), sep="\n")
    print(*lengths(tree), sep="\n")


def rooms() -> Iterator[str]:
    """Two levels deep, with the first line of each room's docstring."""
    for floor in FLOORS:
        yield f"{floor}/  {_first_line(HERE / floor)}"
        for room in sorted((HERE / floor).iterdir()):
            if (room / "__init__.py").exists() or (room.suffix == ".py" and room.stem != "__init__"):
                yield f"  {room.name + '/' * room.is_dir():16}  {_first_line(room)}"
        yield ""


def _first_line(room: Path) -> str:
    file = room / "__init__.py" if room.is_dir() else room
    return (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0]


def imports() -> Iterator[str]:
    """How many imports each room of `search` has from each: all stand on one side of the diagonal."""
    order = ["cli", "api", "experiments", "doctor", "launch", "worker", "view", "training", "devices"]
    found = Counter(
        (path.relative_to(HERE / "search").parts[0], target)
        for path in (HERE / "search").rglob("*.py")
        for target in _targets(path)
    )
    yield "| imports of | " + " | ".join([*order, "storage", "studies"]) + " |"
    yield "|---|" + "---|" * (len(order) + 2)
    for row in order:
        cells = ["·" if row == column else str(found[row, column] or "") for column in [*order, "storage", "studies"]]
        yield f"| {row} | " + " | ".join(cells) + " |"
    yield ""


def _targets(path: Path) -> Iterator[str]:
    """Rooms of `search`, or the other floors, that a file imports; what is for the type checker alone is left out."""
    for node in ast.walk(_without_types(ast.parse(path.read_text()))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("affinity_search."):
            parts = [*str(node.module).split(".")[1:], *(node.names[0].name.split("."))]
            yield parts[1] if parts[0] == "search" else parts[0]


def _without_types(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return tree


def lengths(tree: Path) -> Iterator[str]:
    """Of functions, from `def` to the last line, and of files."""
    files = [path for floor in FLOORS for path in (tree / floor).rglob("*.py")]
    texts = [path.read_text() for path in files]
    functions = [
        int(node.end_lineno or 0) - node.lineno + 1
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lines = sorted(text.count("\n") for text in texts if text.strip())
    yield "| | number | median lines | longest |"
    yield "|---|---|---|---|"
    yield f"| functions | {len(functions)} | {statistics.median(functions):.0f} | {max(functions)} |"
    yield f"| files | {len(lines)} | {statistics.median(lines):.0f} | {lines[-1]} |"


if __name__ == "__main__":
    main()
