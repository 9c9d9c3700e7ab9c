"""What is declared, and what a command may load before it is asked to do anything. Layers: pyproject.toml."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from making import trained

from affinity_search.storage.database.backend import Backend

ROOT = Path(__file__).parent.parent
FOLDERS = ("search", "storage", "studies", "tests", "benchmarks", "examples")
TRAINING = ("keras", "tensorflow", "jax", "torch", "sklearn")
HEAVY = (*TRAINING, "optuna", "sqlalchemy")
COMMANDS = (
    "compare",
    "create",
    "launch",
    "track",
    "worker",
    "status",
    "evaluate",
    "report",
    "export",
    "dashboard",
    "doctor",
    "studies",
)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("floor", [path.parent for path in sorted(ROOT.glob("s*/**/__init__.py"))], ids=str)
def test_a_floor_has_at_most_nine_rooms_and_each_says_what_it_is(floor: Path) -> None:
    files = [path for path in floor.glob("*.py") if path.stem not in ("__init__", "__main__")]
    rooms = files + [path / "__init__.py" for path in floor.iterdir() if (path / "__init__.py").exists()]
    assert floor.name == "commands" or len(rooms) <= 9, "a command is a file, however many there are"
    assert [
        str(path) for path in [*rooms, floor / "__init__.py"] if not ast.get_docstring(ast.parse(path.read_text()))
    ] == []


def test_nobody_imports_the_folders_by_their_own_names() -> None:
    """It works in a checkout alone. Code in strings, for other processes, counts too."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    found = [str(path) for path in files if re.search(r"\b(from|import) (search|storage|studies)\.", path.read_text())]
    found += [str(path) for path in files if re.search(r"\bfrom (search|storage|studies) import", path.read_text())]
    assert found == []


def test_whatever_is_imported_is_declared() -> None:
    """What is there by way of another package goes when that one drops it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "test" for line in lines]
    declared = {"pydantic-core"}  # pydantic names the one version that it works with
    declared |= {re.match(r"[\w-]+", line)[0].lower() for line in [*project["dependencies"], *extras]}  # type: ignore[index]
    distributions = importlib.metadata.packages_distributions()
    own = {"affinity_search", "_typeshed", *sys.stdlib_module_names}
    for path in (path for package in ("studies", "storage", "search") for path in (ROOT / package).rglob("*.py")):
        for module in {name.partition(".")[0] for name in imported(path)} - own:
            owners = {owner.lower().replace("_", "-") for owner in distributions.get(module, [module])}
            assert owners & declared, f"{path} imports {module}"


def loaded_after(code: str) -> set[str]:
    """The heavy modules that a fresh process has loaded after running `code`."""
    script = f"import sys\n{code}\nprint('loaded', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


RUN = """
from affinity_search.search.cli import main
def run(*arguments):
    sys.argv = ["affinity-search", *arguments]
    try:
        main()
    except SystemExit as left:
        assert not left.code, (arguments, left.code)
"""


def test_help_is_instant() -> None:
    everything = "\n".join(f"run({command!r}, '--help')" for command in COMMANDS)
    assert (
        loaded_after(f"{RUN}\nrun('--help')\nrun('studies', 'show', '--help')\n{everything}\nrun('--version')") == set()
    )


def test_launching_and_reading_train_nothing(sqlite: Backend, sqlite_url: str) -> None:
    trained(sqlite)
    at = f"'tiny', '--storage', {sqlite_url!r}"
    modules = "import affinity_search.search.launch.launcher, affinity_search.search.worker.setup"
    code = f"{RUN}\n{modules}\nrun('status', {at})\nrun('export', {at})"
    assert loaded_after(code).isdisjoint(TRAINING)
