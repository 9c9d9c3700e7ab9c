"""Hooks of `make docs`: README as the first page, what the pages link to outside of this folder, and the reference.

The reference is made from the study file's model and the commands themselves, so that it cannot say anything else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"(\]\(\s*<?|\b(?:src|href)=\")([^)\s>\"]+)")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|#", re.IGNORECASE)
CODE = re.compile(r"^ *(```|~~~).*?^ *\1[^\n]*$|(`+)(?!`).+?(?<!`)\2(?!`)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere or are made, and every file that a page links to."""
    from mkdocs.structure.files import File

    made = {
        "index.md": (ROOT / "README.md").read_text(encoding="utf-8"),
        "reference/study-file.md": study_file_page(),
        "reference/commands.md": commands_page(),
        "reference/python.md": PYTHON_PAGE,
    }
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    waiting = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    known = {file.resolve() for file in waiting}
    for page in waiting:
        for target in _targets(page):
            if target in known or target.is_dir():
                continue
            known.add(target)
            if DOCS in target.parents:
                continue  # MkDocs has found it
            files.append(File.generated(config, _uri(target), abs_src_path=str(target)))
            if target.suffix == ".md":
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    source = ROOT / "README.md" if page.file.src_uri == "index.md" else _source(page.file.src_uri)

    def turned(found: re.Match[str]) -> str:
        target = found[2]
        if ELSEWHERE.match(target):
            return found[0]
        path, hash_, anchor = target.partition("#")
        uri = os.path.relpath(_uri((source.parent / path).resolve()), Path(page.file.src_uri).parent)
        return f"{found[1]}{uri}{hash_}{anchor}"

    if page.file.src_uri.startswith("reference/"):
        return markdown
    return _outside_code(markdown, lambda text: LINK.sub(turned, text))


def _outside_code(text: str, change: Any) -> str:
    """The text with everything changed that is no code."""
    parts, at = [], 0
    for code in CODE.finditer(text):
        parts += [change(text[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*parts, change(text[at:])])


def _targets(page: Path) -> list[Path]:
    """The files that a page links to."""
    found = LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    local = [target.partition("#")[0] for _, target in found if not ELSEWHERE.match(target)]
    return [(page.parent / path).resolve() for path in local if path]


def _uri(file: Path) -> str:
    """Where a file of the repository stands in the site's sources."""
    if file == ROOT / "README.md":
        return "index.md"
    return (file.relative_to(DOCS) if DOCS in file.parents else file.relative_to(ROOT)).as_posix()


def _source(uri: str) -> Path:
    return DOCS / uri if (DOCS / uri).exists() else ROOT / uri


def study_file_page() -> str:
    """Every key with what it may hold and its default, from the model that checks study files."""
    from affinity_search.studies.model.spec import StudySpec

    return "\n".join(["# Study file: every key", "", STUDY_FILE, *_tables(StudySpec, "")]) + "\n"


STUDY_FILE = """
Made from the model that checks study files. What the keys mean: [study file](../study-file.md). The table `[space]` has
the keys of the network's head: [heads](../study-file.md#network). `[sampler]` and `[pruner]` take the options of
Optuna's class too.
"""


def _tables(model: Any, name: str) -> Iterator[str]:
    from affinity_search.studies.model.translate import keys, submodel

    yield from (f"## `[{name}]`" if name else "## Without a table", "", "| key | allowed | default |", "|---|---|---|")
    below = []
    for key, field in keys(model).items():
        table = submodel(field)
        if table is not None and not name:
            below.append((key, table))
            continue
        usual = "required" if field.is_required() else f"`{field.default}`" if field.default is not None else "none"
        yield f"| `{key}` | {field.description or ''} | {usual} |".replace("()", "[]")
    yield ""
    for key, table in below:
        yield from _tables(table, key)


def commands_page() -> str:
    """Every command with its arguments, options and defaults."""
    from typer.main import get_command

    from affinity_search.search.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    lines = [
        "# Commands: every option",
        "",
        "Made from the commands. What they are for: [commands](../commands.md).",
        "",
    ]
    for name, command in sorted(commands.items()):
        lines += [f"## `{name}`", "", (command.help or "").strip(), ""]
        for sub, one in getattr(command, "commands", {}).items():
            lines += [f"### `{name} {sub}`", "", (one.help or "").strip(), "", *_options(one)]
        lines += _options(command)
    return "\n".join(lines) + "\n"


def _options(command: Any) -> list[str]:
    rows = []
    for each in command.params:
        if each.name == "help" or getattr(each, "hidden", False):
            continue
        is_option = each.opts[0].startswith("-")
        names = ", ".join(f"`{name}`" for name in each.opts) if is_option else f"`{each.metavar or each.name.upper()}`"
        usual = "required" if each.required else _shown(each.default)
        meaning = " ".join((each.help or "").split()).replace("|", "\\|")
        rows.append(f"| {names} | {meaning} | {usual} |")
    return ["| option | meaning | default |", "|---|---|---|", *rows, ""] if rows else []


def _shown(default: Any) -> str:
    return "" if default in (None, False, ()) or callable(default) else f"`{default}`"


PYTHON_PAGE = """# Python

Made from the docstrings. With examples: [from Python](../python.md).

::: affinity_search.search.api
"""
