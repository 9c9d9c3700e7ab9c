"""The report as one page that needs nothing else: no request, no script, its figures drawn in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from affinity_search.search.experiments.document import ComparisonModel, LevelModel
from affinity_search.search.experiments.report import tables, words
from affinity_search.search.experiments.report.drawing import printable
from affinity_search.search.experiments.report.forest import forest
from affinity_search.search.experiments.report.looks import Figure, looks_of
from affinity_search.search.experiments.report.recall import recall_by_size
from affinity_search.search.experiments.report.searching import best_so_far, maps
from affinity_search.search.view.terminal import plural


@dataclass(frozen=True)
class LevelView:
    """A level as the template takes it."""

    key: str  # of its anchors
    title: str  # empty where there is one level
    summary: str
    verdict: str
    result: tables.Table
    metrics: tables.Table | None
    figures: Sequence[Figure]
    rest: Sequence[tables.Table]


def page(found: ComparisonModel) -> str:
    """The whole page as HTML."""
    return _template().render(
        found=found,
        subtitle=subtitle(found),
        missing=words.missing(found),
        warning=words.article_warning(found),
        overview=tables.overview(found),
        levels=[_view(found, level, f"level-{at}") for at, level in enumerate(found.levels, start=1)],
        conditions=tables.conditions(found),
        intervals=words.about_intervals(found),
        definition=json.dumps(found.definition, indent=2, ensure_ascii=False),
    )


def subtitle(found: ComparisonModel) -> str:
    """What is compared, in a few words."""
    rivals = len(words.contestants_of(found))
    levels = f", {len(found.levels)} levels" if len(found.levels) > 1 else ""
    runs = plural(found.draws, "final run")
    searched = f"up to {found.trials} trials to find each one's settings, then" if found.trials > 1 else "each with"
    return f"{rivals} contestants on {found.dataset}{levels}, judged by {found.label}: {searched} {runs}."


def level_tables(level: LevelModel) -> list[tables.Table]:
    """Those that follow a level's figures."""
    made = [tables.settings(level), tables.metrics(level, medians=True), tables.failures(level)]
    return [table for table in made if table is not None]


def _view(found: ComparisonModel, level: LevelModel, key: str) -> LevelView:
    many = len(found.levels) > 1
    settings, *rest = [*level_tables(level), None]
    detail = [settings, tables.searches(found, level), tables.differences(found, level), *rest]
    return LevelView(
        key=key,
        title=words.level_title(level) if many else "",
        summary=words.summary(found, level),
        verdict=words.level_verdict(found, level),
        result=tables.result(found, level),
        metrics=tables.metrics(level),
        figures=_figures(found, level, key),
        rest=[table for table in detail if table is not None],
    )


def _figures(found: ComparisonModel, level: LevelModel, key: str) -> list[Figure]:
    """Those that there is something to draw for. `key` begins their ids."""
    looks = looks_of(found)
    made = [
        forest(found, level, f"{key}-forest"),
        recall_by_size(found, level, looks, f"{key}-recall"),
        best_so_far(found, level, looks, f"{key}-search"),
        maps(found, level, f"{key}-map"),
    ]
    return [figure for figure in made if figure is not None]


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    return environment.get_template("page.html.j2")


def _printable(value: object) -> object:
    """A reason out of a database may hold any character."""
    return printable(value) if type(value) is str else value
