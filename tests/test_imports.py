"""Who may import whom, and what a command may load before it is asked to do anything."""

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

from storage.backend import Backend

ROOT = Path(__file__).parent.parent
TRAINING = ("keras", "tensorflow", "jax", "torch", "sklearn")
HEAVY = (*TRAINING, "optuna", "sqlalchemy")
COMMANDS = ("create", "launch", "worker", "status", "evaluate", "export", "dashboard", "doctor", "studies")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(module: str, *folders: str) -> set[str]:
    """Files of the packages that import `module` or something in it."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert files
    return {
        str(path.relative_to(ROOT))
        for path in files
        if any(f"{name}.".startswith(f"{module}.") for name in imported(path))
    }


@pytest.mark.parametrize(
    ("module", "folders"),
    [
        ("storage", ("studies",)),
        ("search", ("studies", "storage")),
        ("optuna", ("studies", "search/training")),
        ("sqlalchemy", ("studies", "search")),
        ("keras", ("studies", "storage", "search/figures", "search/dashboard")),
        ("studies", ("search/training",)),
        ("storage", ("search/training",)),
    ],
)
def test_nobody_imports_upwards(module: str, folders: tuple[str, ...]) -> None:
    assert importers(module, *folders) == set()


@pytest.mark.parametrize("module", ["tensorflow", "jax", "torch"])
def test_one_room_knows_the_hardware(module: str) -> None:
    assert {Path(path).parent for path in importers(module, "studies", "storage", "search")} <= {Path("search/devices")}


def test_one_file_knows_the_cluster() -> None:
    assert importers("ray", "studies", "storage", "search") == {"search/on_ray.py"}


def test_whatever_is_imported_is_declared() -> None:
    """What is there by way of another package goes when that one drops it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "test" for line in lines]
    declared = {"pydantic-core"}  # pydantic names the one version that it works with
    declared |= {re.match(r"[\w-]+", line)[0].lower() for line in [*project["dependencies"], *extras]}  # type: ignore[index]
    distributions = importlib.metadata.packages_distributions()
    own = {"studies", "storage", "search", "_typeshed", *sys.stdlib_module_names}
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
from search.cli import main
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
    code = f"{RUN}\nimport search.launcher, search.worker, search.snapshot\nrun('status', {at})\nrun('export', {at})"
    assert loaded_after(code).isdisjoint(TRAINING)
