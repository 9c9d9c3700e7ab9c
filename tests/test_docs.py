"""The pages for people: their links lead somewhere, README stays short, and the commands that they name exist."""

import re
import tomllib
from collections import Counter
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = "affinity-search"

FENCE = re.compile(r"^ *(```|~~~).*?^ *\1[^\n]*$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|^\[[^\]]+\]:\s*(\S+)|\b(?:src|href)=\"([^\"]+)\"", re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def _pages() -> list[Path]:
    """The repository's own; what tools and builds left in folders of theirs is not."""
    inside = (page.relative_to(ROOT) for page in ROOT.rglob("*.md"))
    return sorted(page for page in inside if not re.search(r"(^|/)(\.|build/|dist/|node_modules/)", page.as_posix()))


def _text(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _without_code(text: str) -> str:
    return INLINE.sub("", FENCE.sub("", text))


def _code(text: str) -> list[str]:
    """What stands in fences, and between backticks outside of them."""
    fenced = [found[0] for found in FENCE.finditer(text)]
    return fenced + [found[2] for found in INLINE.finditer(FENCE.sub("", text))]


def _targets(page: Path) -> list[str]:
    """Where the page's links and pictures lead within the repository."""
    found = [next(filter(None, groups)) for groups in LINK.findall(_without_code(_text(page)))]
    return [target for target in found if not ELSEWHERE.match(target)]


@cache
def _anchors(page: Path) -> frozenset[str]:
    """As GitHub makes them of a page's headings; the second of two equal ones gets a -1."""
    slugs, seen = [], Counter[str]()
    for heading in HEADING.findall(FENCE.sub("", _text(page))):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        slugs.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return frozenset(slugs)


@cache
def _commands() -> frozenset[str]:
    """The program's, found from pyproject's entry point: the module that has it stands beside the one with the app."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    app = import_module(scripts[PROGRAM].partition(":")[0] + ".app").app
    from typer.main import get_command

    return frozenset(get_command(app).commands)


@pytest.mark.parametrize("page", _pages(), ids=str)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    dead = []
    for target in _targets(page):
        path, _, anchor = unquote(target).partition("#")
        file = (ROOT / page.parent / path).resolve() if path else ROOT / page
        if not file.exists():
            dead.append(f"{target}: no such file")
        elif anchor and anchor not in _anchors(file.relative_to(ROOT)):
            dead.append(f"{target}: no such heading; there are {', '.join(sorted(_anchors(file.relative_to(ROOT))))}")
    assert not dead, "\n".join(dead)


@pytest.mark.parametrize("page", _pages(), ids=str)
def test_every_command_exists(page: Path) -> None:
    # One page has so many commands that it calls the program A.
    name = rf"(?:{PROGRAM}|\bA)" if "`A` stands for" in _text(page) else PROGRAM
    named = {word for code in _code(_text(page)) for word in re.findall(rf"{name}[ \t]+([a-z][a-z-]*)", code)}
    assert named <= _commands(), f"unknown: {named - _commands()}"


def test_the_table_of_commands_is_complete() -> None:
    rows = re.findall(r"^\| `([a-z]+)[^`]*` \|", _text(Path("docs/commands.md")), re.MULTILINE)
    assert set(rows) == _commands()


def _hooks() -> Any:
    """Those of the documentation's site."""
    spec = spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_s_reference_has_every_key_and_every_option() -> None:
    hooks = _hooks()
    keys, options = hooks.study_file_page(), hooks.commands_page()
    assert {"`trials`", "`imbalance_factor`", "`reweight_from`", "`batch_norm_momentum`"} <= set(keys.split())
    assert {f"`{name}`" for name in _commands()} <= set(options.split())
    assert "`--workers-per-device`" in options


def test_the_site_turns_links_of_the_repository_into_its_own() -> None:
    hooks = _hooks()
    page = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    told = hooks.on_page_markdown("[a](docs/scores.md#x) `[b](docs/use.md)` [c](https://d.e)", page, None, None)
    assert told == "[a](scores.md#x) `[b](docs/use.md)` [c](https://d.e)"
    page.file.src_uri = "results/mnist-heads.md"
    assert hooks.on_page_markdown("[a](../../README.md#b)", page, None, None) == "[a](../index.md#b)"


def test_readme_is_short() -> None:
    lines = _text(Path("README.md")).splitlines()
    assert len(lines) < 200
    assert not [number for number, line in enumerate(lines, start=1) if len(line) > 140], "lines above 140 characters"


def test_the_pages_are_found() -> None:
    """Without it, a wrong filter would make all the others pass."""
    assert {Path("README.md"), Path("docs/commands.md"), Path("benchmarks/README.md")} <= set(_pages())
    assert "exit-codes" in _anchors(Path("docs/commands.md"))
    assert "docs/commands.md" in "\n".join(_targets(Path("README.md")))
