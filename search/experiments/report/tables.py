"""The report's tables, as data: the page and the Markdown write the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from affinity_search.search.experiments.document import ComparisonModel, ContestantModel, LevelModel
from affinity_search.search.experiments.report.words import (
    NOTHING,
    contestants_of,
    draw_text,
    ends,
    level_title,
    metric_label,
    number,
    points,
    protocol_text,
    settings_text,
    shown_verdict,
)
from affinity_search.search.view.terminal import duration_text, plural
from affinity_search.studies.metrics import METRICS
from affinity_search.studies.model.writing import flat


@dataclass(frozen=True)
class Column:
    name: str
    number: bool = False


@dataclass(frozen=True)
class Cell:
    """`small` stands below the text, or behind it in parentheses. `kind` is that of a verdict."""

    text: str
    small: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """The first cell of each row names it."""

    title: str
    about: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


def overview(found: ComparisonModel) -> Table | None:
    """Contestant × level; None where there is one level."""
    if len(found.levels) < 2:
        return None
    columns = [Column("Contestant"), *(Column(level_title(level), number=True) for level in found.levels)]
    rivals = [name for name in contestants_of(found) if name != found.baseline]
    rows = [[Cell(name), *(_at_level(found, level, name) for level in found.levels)] for name in rivals]
    about = f"Paired differences to {found.baseline} in points of {found.label}, 95 % intervals, and the verdicts."
    return Table("The verdicts by level", about, columns, rows)


def _at_level(found: ComparisonModel, level: LevelModel, name: str) -> Cell:
    one = next((one for one in level.contestants if one.contestant == name), None)
    if one is None:
        return Cell(NOTHING)
    shown = shown_verdict(found, level, one)
    difference = one.verdict.difference if one.verdict else None
    if difference is None or difference.mean is None:
        return Cell(NOTHING, shown.text, shown.kind)
    between = ends(difference, signed=True)
    told = f"{between}; {shown.text}" if between else shown.text
    return Cell(points(difference.mean, signed=True), told, shown.kind)


def result(found: ComparisonModel, level: LevelModel) -> Table:
    """The table: who is better, by how much, with which settings, for how much work."""
    published = any(one.published is not None for one in level.contestants)
    columns = [Column("Contestant"), Column(found.label, number=True)]
    columns += [Column("Median", number=True), Column("Published", number=True)] * published
    columns += [
        Column(f"−\u00a0{found.baseline}", number=True),
        Column("Verdict"),
        Column("Would have been shown", number=True),
        Column("Chosen settings"),
    ]
    columns += [Column("Epochs", number=True), Column("Time", number=True)]
    about = (
        f"Points of {found.label} on the test images: the mean over the draws (a draw is a fresh {draw_text(found)}), "
        f"and its paired difference to {found.baseline}, with 95 % intervals. The verdict is after Holm's correction "
        "for the number of rivals. A true difference of the size that would have been shown is shown in 80 % of "
        "comparisons such as this one. "
        "Epochs and time: of the search, + of the final runs; time is of training, over all workers."
    )
    if published:
        about += (
            " Published: a figure of others, as the comparison's file gives it; beside it the median over our draws."
        )
    rows = [_result_row(found, level, one, published) for one in level.contestants]
    return Table("The result", about, columns, rows)


def _result_row(found: ComparisonModel, level: LevelModel, one: ContestantModel, published: bool) -> list[Cell]:
    over, verdict, shown = one.interval, one.verdict, shown_verdict(found, level, one)
    difference = verdict.difference if verdict else None
    smallest = verdict.smallest if verdict and shown.kind in ("better", "worse", "none") else None
    return [
        Cell(one.contestant),
        Cell(points(over.mean if over else None), ends(over)),
        *([Cell(points(one.median)), Cell(points(one.published))] if published else []),
        Cell(points(difference.mean, signed=True), ends(difference, signed=True)) if difference else Cell(""),
        Cell(shown.text, kind=shown.kind),
        Cell(points(smallest)) if smallest is not None else Cell(""),
        Cell(settings_text(one) or NOTHING),
        Cell(f"{one.search.epochs:,}", f"+ {one.final_epochs:,}"),
        Cell(duration_text(one.search.seconds), f"+ {duration_text(one.final_seconds)}"),
    ]


def differences(found: ComparisonModel, level: LevelModel) -> Table | None:
    """What the verdicts rest on."""
    columns = [Column("Contestant"), Column("95 % interval", number=True), Column("Corrected interval", number=True)]
    wider = any(one.verdict and one.verdict.with_test_images for one in level.contestants)
    columns += [Column("With test images", number=True)] * wider
    columns += [Column("p", number=True), Column("p after Holm", number=True), Column("Pairs", number=True)]
    rows = []
    for one in level.contestants:
        if (verdict := one.verdict) is None or verdict.difference.mean is None:
            continue
        judged = shown_verdict(found, level, one).kind != "open"
        corrected = verdict.corrected if judged else None
        left_out = f"without draw {', '.join(map(str, verdict.left_out))}" if verdict.left_out else ""
        rows.append(
            [
                Cell(one.contestant),
                Cell(ends(verdict.difference, signed=True) or NOTHING),
                Cell(ends(corrected, signed=True) or NOTHING, f"{100 * corrected.level:.4g} %" if corrected else ""),
                *[Cell(ends(verdict.with_test_images, signed=True) or NOTHING)] * wider,
                Cell(_p(verdict.p) if judged else NOTHING),
                Cell(_p(verdict.adjusted) if judged else NOTHING),
                Cell(str(verdict.difference.n), left_out),
            ]
        )
    about = f"Paired differences to {found.baseline} in points. What each interval is about stands at the end."
    return Table("What the verdicts rest on", about, columns, rows) if rows else None


def _p(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "< 0.0001" if value < 1e-4 else f"{value:#.2g}" if value < 0.1 else f"{value:.2f}"


def metrics(level: LevelModel, *, medians: bool = False) -> Table | None:
    """Every metric over the draws: means, or medians."""
    keys = [key for key in METRICS if any(key in one.means for one in level.contestants)]
    rows = [
        [Cell(one.contestant), *(Cell(points(_over_draws(one, key, medians))) for key in keys)]
        for one in level.contestants
        if one.means
    ]
    columns = [Column("Contestant"), *(Column(metric_label(key), number=True) for key in keys)]
    if medians:
        about = "Points, medians over the draws; the article reports medians."
        return Table("Medians over the draws", about, columns, rows) if rows else None
    about = "Points, means over the draws. A greater number is better in every column."
    return Table("Other metrics", about, columns, rows) if rows else None


def _over_draws(one: ContestantModel, key: str, medians: bool) -> float | None:
    if not medians:
        return one.means.get(key)
    values = [run.metrics[key] for run in one.runs if key in run.metrics]
    return median(values) if values and key in one.means else None


def settings(level: LevelModel) -> Table | None:
    """What was searched, and what the search chose."""
    rows = []
    for one in level.contestants:
        for key in dict.fromkeys([*one.space, *(one.params or {})]):
            symbol = one.symbols.get(key, key)
            name = key if symbol == key else f"{symbol} ({key})"
            chosen = (one.params or {}).get(key)
            value = NOTHING if chosen is None else number(chosen)
            rows.append([Cell(one.contestant), Cell(name), Cell(value), Cell(one.space.get(key, NOTHING))])
    columns = [Column("Contestant"), Column("Setting"), Column("Chosen", number=True), Column("Searched")]
    about = "Each contestant's settings are those of the best trial of its own search."
    return Table("The chosen settings", about, columns, rows) if rows else None


def searches(found: ComparisonModel, level: LevelModel) -> Table:
    columns = [Column("Contestant"), Column("Trials", number=True), Column("Best, in the search", number=True)]
    columns += [Column("Final runs", number=True)]
    pruned = any(one.search.pruning for one in level.contestants)
    columns += [Column("Saved by pruning", number=True)] * pruned
    rows = []
    for one in level.contestants:
        search = one.search
        ended = f"{search.complete} complete, {search.pruned} pruned, {search.failed} failed"
        best = Cell(points(search.best), "" if search.trial is None else f"trial {search.trial}")
        rows.append(
            [
                Cell(one.contestant),
                Cell(str(search.places), ended),
                best,
                Cell(points(one.interval.mean if one.interval else None)),
                *[_pruning(one)] * pruned,
            ]
        )
    if found.protocol == "article":
        about = (
            "Both scores are on test images that chose the epoch, and too high; the search's is the best of many too."
        )
    else:
        about = (
            "The search's own best is on validation images, and too high: it is the best of many. The final runs' mean "
            "on the test images is the number to quote."
        )
    if pruned:
        about += (
            " Saved by pruning: epochs that the stopped trials did not train. An audited trial ran on when the pruner "
            "would have stopped it; where it ends among the best tenth of the trials, the pruner was wrong."
        )
    return Table("The searches", about, columns, rows)


def _pruning(one: ContestantModel) -> Cell:
    """Epochs saved, and how often the pruner was wrong as far as it was audited."""
    found = one.search.pruning
    if found is None:
        return Cell(NOTHING)
    wrong = f"{found.among_best} of {found.audited} audited among the best tenth" if found.audited else "none audited"
    return Cell(plural(found.epochs_saved, "epoch"), wrong)


def failures(level: LevelModel) -> Table | None:
    """Trials and final runs without a score, and why; None if nothing failed."""
    rows = [[Cell(text) for text in row] for one in level.contestants for row in _failures_of(one)]
    columns = [Column("Contestant"), Column("What"), Column("Reason")]
    about = "Trials and final runs that ended without a score. They are not in any mean."
    return Table("What failed", about, columns, rows) if rows else None


def _failures_of(one: ContestantModel) -> Iterator[tuple[str, str, str]]:
    for reason, times in one.search.reasons.items():
        yield one.contestant, f"{times} of {one.search.places} trials", reason
    for run in one.runs:
        if run.state == "failed":
            yield one.contestant, f"final run, draw {run.draw}", run.reason or "unknown"


def recalls(found: ComparisonModel, level: LevelModel) -> Table | None:
    """The recall of each class, the class with the most training images first."""
    order = by_size(level)
    columns = [Column("Class"), Column("Training images", number=True)]
    columns += [Column(one.contestant, number=True) for one in level.contestants if recalls_of(one)]
    told = [recalls_of(one) for one in level.contestants if recalls_of(one)]
    rows = [
        [
            Cell(found.classes[at] if at < len(found.classes) else str(at)),
            Cell(f"{level.class_sizes[at]:,}"),
            *(Cell(points(each[at] if at < len(each) else None)) for each in told),
        ]
        for at in order
    ]
    return Table("Recall of each class", "Points, means over the draws.", columns, rows) if told else None


def by_size(level: LevelModel) -> list[int]:
    """The classes, that with the most training images first."""
    return sorted(range(len(level.class_sizes)), key=lambda at: -level.class_sizes[at])


def recalls_of(one: ContestantModel) -> list[float | None]:
    """Of each class, the mean over the final runs; empty without any."""
    told = [run.recalls for run in one.runs if run.recalls]
    found: list[float | None] = []
    for each in zip(*told, strict=False):
        known = [value for value in each if value is not None]
        found.append(fmean(known) if known else None)
    return found


def conditions(found: ComparisonModel) -> Table:
    """What was run, for who wants to run it again."""
    rows = [[Cell(name), Cell(text)] for name, text in _conditions(found) if text]
    return Table("What was run", "", [Column("What"), Column("Value")], rows)


def _conditions(found: ComparisonModel) -> Iterator[tuple[str, str]]:
    yield "Data set", f"{found.dataset}, {len(found.classes)} classes"
    for level in found.levels:
        yield f"Training images by class{f', {level.text}' if level.text else ''}", _sizes(level)
    yield "Protocol", protocol_text(found)
    about = METRICS[found.metric].about if found.metric in METRICS else ""
    yield "Metric", f"{found.label}: {about}" if about else found.label
    search = f"up to {plural(found.trials, 'trial')} for each contestant"
    yield "Search", f"{search}, up to {plural(found.epochs, 'epoch')} each"
    yield "Final runs", f"{plural(found.draws, 'draw')} for each contestant"
    yield "Draws and seeds", _seeds(found)
    yield "Devices", "; ".join(found.devices)
    yield "Versions", ", ".join(f"{name} {' and '.join(told)}" for name, told in found.versions.items())
    yield "Test images opened by", _openers(found)
    yield "Settings in common", ", ".join(f"{key} = {_value(value)}" for key, value in flat(found.settings))


def _sizes(level: LevelModel) -> str:
    """One after the other, in the order of the labels, where there are few classes."""
    sizes = level.class_sizes
    if not sizes:
        return NOTHING
    span = f"{min(sizes):,} to {max(sizes):,}"
    return f"{', '.join(f'{size:,}' if size < 1000 else str(size) for size in sizes)}" if len(sizes) <= 20 else span


def _seeds(found: ComparisonModel) -> str:
    seeds = {run.draw: run.seed for level in found.levels for one in level.contestants for run in one.runs}
    return ", ".join(f"{draw}: {seed}" for draw, seed in sorted(seeds.items()))


def _openers(found: ComparisonModel) -> str:
    runs = [run for level in found.levels for one in level.contestants for run in one.runs if run.opened_by]
    return ", ".join(f"{who} ({n} final runs)" for who, n in sorted(Counter(run.opened_by for run in runs).items()))


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
