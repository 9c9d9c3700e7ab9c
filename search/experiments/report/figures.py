"""The report's figures: paired differences, recall by class size, the searches, and their maps of λ and σ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex

from affinity_search.search.experiments.compare import ComparisonModel, ContestantModel, IntervalModel, LevelModel
from affinity_search.search.experiments.report.drawing import (
    SERIES,
    SHAPES,
    Axis,
    Drawing,
    padded,
    padded_log,
    shortened,
    text_width,
)
from affinity_search.search.experiments.report.tables import Table, by_size, recalls, recalls_of
from affinity_search.search.experiments.report.words import (
    Shown,
    contestants_of,
    ends,
    number,
    points,
    settings_text,
    shown_verdict,
)

WIDTH = 760.0
MOST_NAMED = 20  # classes; with more they are put together in groups
GROUPS = 12
VERDICT_SHAPES = {"better": "triangle", "worse": "down", "none": "circle"}


@dataclass(frozen=True)
class Figure:
    """`legend` are keys with their names; `table` has the figure's numbers for who cannot see it."""

    title: str
    about: str
    drawings: Sequence[Markup]
    legend: Sequence[tuple[Markup, str]] = ()
    table: Table | None = None


@dataclass(frozen=True)
class Look:
    """A contestant's colour, marker and line, the same in all figures."""

    colour: str
    shape: str
    dash: str
    width: float = 2.0


@dataclass(frozen=True)
class Looks:
    """Those of all contestants."""

    by_name: dict[str, Look] = field(default_factory=dict)

    @classmethod
    def of(cls, found: ComparisonModel) -> Looks:
        looks: dict[str, Look] = {}
        rivals = [name for name in contestants_of(found) if name != found.baseline]
        for at, name in enumerate(rivals):
            dash = ("", "7 3", "2 3", "9 3 2 3")[at // SERIES % 4]
            looks[name] = Look(f"s{at % SERIES}", SHAPES[(at + at // SERIES) % len(SHAPES)], dash)
        return cls({found.baseline: Look("base", "circle", "5 3", 2.5)} | looks)

    def legend(self, names: Sequence[str]) -> list[tuple[Markup, str]]:
        return [(self._key(name), name) for name in names]

    def _key(self, name: str) -> Markup:
        look = self.by_name[name]
        key = Drawing("key", 34, 14, "", "")
        key.root.attrib = {"viewBox": "0 0 34 14", "aria-hidden": "true", "width": "34", "height": "14"}
        key.root[:] = []
        key.path([(1, 7), (33, 7)], look.colour, look.width, look.dash)
        key.marker(look.shape, 17, 7, 4, look.colour)
        return key.markup()


def figures(found: ComparisonModel, level: LevelModel, key: str) -> list[Figure]:
    """Those that there is something to draw for. `key` begins their ids."""
    looks = Looks.of(found)
    made = [
        forest(found, level, f"{key}-forest"),
        recall_by_size(found, level, looks, f"{key}-recall"),
        best_so_far(found, level, looks, f"{key}-search"),
        maps(found, level, f"{key}-map"),
    ]
    return [figure for figure in made if figure is not None]


# Paired differences


def forest(found: ComparisonModel, level: LevelModel, key: str) -> Figure | None:
    """A row for each rival: its paired difference to the baseline, with both intervals."""
    rows = [(one, shown_verdict(found, level, one)) for one in level.contestants]
    rows = [(one, shown) for one, shown in rows if one.verdict and one.verdict.difference.mean is not None]
    if not rows:
        return None
    title = f"Differences to {found.baseline}"
    about = (
        f"Each row is a contestant's {found.label} minus that of {found.baseline} on the same draws: to the right of "
        "the line at 0 it is better. The thick bar is the 95 % interval, the thin one the interval after Holm's "
        "correction, which decides the verdict."
    )
    told = [f"{one.contestant} {_told(one)}: {shown.text}" for one, shown in rows]
    left = 16 + min(190.0, max(text_width(one.contestant) for one, _ in rows))
    drawing = Drawing(key, WIDTH, 34 * len(rows) + 78, title, "; ".join(told))
    axis = Axis(*_forest_range([one for one, _ in rows]), left, WIDTH - 172)
    _forest_axis(drawing, axis, found, 34 * len(rows) + 30)
    for at, (one, shown) in enumerate(rows):
        _forest_row(drawing, axis, 47 + 34 * at, one, shown)
    names = {"better": "better", "worse": "worse", "none": "no difference shown", "": "no verdict"}
    there = {shown.kind if shown.kind in VERDICT_SHAPES else "" for _, shown in rows}
    legend = [(_verdict_key(kind), name) for kind, name in names.items() if kind in there]
    return Figure(title, about, [drawing.markup()], legend)


def _told(one: ContestantModel) -> str:
    assert one.verdict is not None
    difference = one.verdict.difference
    between = ends(difference, signed=True)
    return points(difference.mean, signed=True) + (f" ({between})" if between else "")


def _forest_range(rows: Sequence[ContestantModel]) -> tuple[float, float]:
    """In points. No score can differ by more than 100; what reaches farther is cut."""
    values = [0.0]
    for one in rows:
        assert one.verdict is not None
        for interval in (one.verdict.difference, one.verdict.corrected):
            if interval is not None:
                values += [100 * end for end in (interval.low, interval.mean, interval.high) if end is not None]
    return padded([min(max(value, -100.0), 100.0) for value in values], least=0.5)


def _forest_axis(drawing: Drawing, axis: Axis, found: ComparisonModel, bottom: float) -> None:
    for tick in axis.ticks():
        drawing.line(axis(tick), 28, axis(tick), bottom, "grid")
        label = f"{tick:+g}" if tick else "0"
        drawing.text(axis(tick), bottom + 14, label.replace("-", "−"), "muted", "middle")
    drawing.line(axis(0), 24, axis(0), bottom, "ink", 1.5)
    caption = shortened(f"points of {found.label}, contestant − {found.baseline}", WIDTH - 20)
    middle = min(max((axis.start + axis.end) / 2, text_width(caption) / 2), WIDTH - text_width(caption) / 2)
    drawing.text(middle, bottom + 36, caption, "ink", "middle")
    if axis(0) - axis.start > text_width("← worse") + 8:
        drawing.text(axis(0) - 8, 14, "← worse", "muted", "end")
    if axis.end - axis(0) > text_width("better →") + 8:
        drawing.text(axis(0) + 8, 14, "better →", "muted")


def _forest_row(drawing: Drawing, axis: Axis, y: float, one: ContestantModel, shown: Shown) -> None:
    assert one.verdict is not None
    verdict, kind = one.verdict, shown.kind if shown.kind in VERDICT_SHAPES else "open-verdict"
    drawing.text(axis.start - 12, y, shortened(one.contestant, axis.start - 16), "ink", "end")
    if shown.kind in VERDICT_SHAPES:
        _bar(drawing, axis, y, verdict.corrected, kind, 1.5, cap=4)
    _bar(drawing, axis, y, verdict.difference, kind, 5)
    shape = VERDICT_SHAPES.get(shown.kind, "diamond")
    middle = 100 * (verdict.difference.mean or 0.0)
    drawing.marker(shape, axis.clipped(middle), y, 6, f"{kind} ringed", f"{one.contestant}: {_told(one)}, {shown.text}")
    drawing.text(axis.end + 12, y, _told(one), "ink")


def _bar(
    drawing: Drawing, axis: Axis, y: float, interval: IntervalModel | None, look: str, width: float, cap: float = 0
) -> None:
    """With an arrowhead where it reaches beyond the axis."""
    if interval is None or interval.low is None or interval.high is None:
        return
    low, high = 100 * interval.low, 100 * interval.high
    drawing.line(axis.clipped(low), y, axis.clipped(high), y, look, width)
    for end, way in ((low, -1), (high, 1)):
        x = axis.clipped(end)
        if not axis.low <= end <= axis.high:
            drawing.path([(x - way * 5, y - 5), (x, y), (x - way * 5, y + 5)], look, 1.5)
        elif cap:
            drawing.line(x, y - cap, x, y + cap, look, width)


def _verdict_key(kind: str) -> Markup:
    key = Drawing("key", 34, 14, "", "")
    key.root.attrib = {"viewBox": "0 0 34 14", "aria-hidden": "true", "width": "34", "height": "14"}
    key.root[:] = []
    look = kind or "open-verdict"
    key.line(2, 7, 32, 7, look, 4)
    key.marker(VERDICT_SHAPES.get(kind, "diamond"), 17, 7, 4.5, f"{look} ringed")
    return key.markup()


# Recall by class size


def recall_by_size(found: ComparisonModel, level: LevelModel, looks: Looks, key: str) -> Figure | None:
    """Recall of every class, the largest class first; classes are put together where there are many."""
    told = {one.contestant: values for one in level.contestants if (values := recalls_of(one))}
    groups = _groups(by_size(level))
    if not told or not groups:
        return None
    labels = [_group_label(found, level, group) for group in groups]
    one_each = all(len(group) == 1 for group in groups)
    about = (
        "The share of each class's test images that are recognised, mean over the draws; the classes with the most "
        "training images stand on the left, their number in small type."
        if one_each
        else "The share of test images that are recognised, mean over the draws and over classes of similar size; the "
        "classes with the most training images stand on the left."
    )
    band = (WIDTH - 70) / len(groups)
    turned = any(text_width(name) > band - 4 for name, _ in labels)
    below = 16 + 0.64 * max(text_width(f"{name} · {size}") for name, size in labels) if turned else 34
    drawing = Drawing(key, WIDTH, 300 + below + 24, "Recall by class size", _recall_words(told, groups))
    y = Axis(0, 100, 300, 14)
    _recall_axes(drawing, y, labels, band, turned, "class" if one_each else "classes by training images", 300 + below)
    names = [name for name in contestants_of(found) if name in told]
    for at, name in enumerate(names):
        shift = (at - (len(names) - 1) / 2) * min(6.0, band * 0.7 / max(len(names), 1))
        ends_ = _recall_points(told[name], groups)
        places = [(56 + band * (n + 0.5) + shift, value) for n, value in enumerate(ends_)]
        _series(drawing, y, looks.by_name[name], name, places, [label for label, _ in labels])
    return Figure("Recall by class size", about, [drawing.markup()], looks.legend(names), recalls(found, level))


def _groups(order: Sequence[int]) -> list[list[int]]:
    """Each class alone where there are few; else neighbours in size together."""
    if len(order) <= MOST_NAMED:
        return [[at] for at in order]
    cuts = [round(part * len(order) / GROUPS) for part in range(GROUPS + 1)]
    return [list(order[start:end]) for start, end in zip(cuts, cuts[1:], strict=False) if end > start]


def _group_label(found: ComparisonModel, level: LevelModel, group: Sequence[int]) -> tuple[str, str]:
    """What stands below the axis: a name, and the number of training images."""
    sizes = [level.class_sizes[at] for at in group]
    if len(group) == 1:
        name = found.classes[group[0]] if group[0] < len(found.classes) else str(group[0])
        return shortened(name, 130), str(sizes[0])
    span = str(sizes[0]) if min(sizes) == max(sizes) else f"{max(sizes)}–{min(sizes)}"
    return span, f"{len(group)} classes"


def _recall_points(values: Sequence[float | None], groups: Sequence[Sequence[int]]) -> list[float | None]:
    """In points, of each group."""
    found: list[float | None] = []
    for group in groups:
        known = [value for at in group if at < len(values) and (value := values[at]) is not None]
        found.append(100 * fmean(known) if known else None)
    return found


def _recall_words(told: dict[str, list[float | None]], groups: Sequence[Sequence[int]]) -> str:
    parts = []
    for name, values in told.items():
        largest, smallest = (_recall_points(values, groups)[at] for at in (0, -1))
        if largest is not None and smallest is not None:
            parts.append(f"{name}: {largest:.0f} % in the largest class, {smallest:.0f} % in the smallest")
    return "; ".join(parts)


def _recall_axes(
    drawing: Drawing, y: Axis, labels: Sequence[tuple[str, str]], band: float, turned: bool, caption: str, bottom: float
) -> None:
    for tick in (0, 20, 40, 60, 80, 100):
        drawing.line(56, y(tick), WIDTH - 14, y(tick), "grid")
        drawing.text(48, y(tick), str(tick), "muted", "end")
    drawing.text(12, (y.start + y.end) / 2, "recall, %", "ink", "middle", turn=-90)
    for at, (name, size) in enumerate(labels):
        x = 56 + band * (at + 0.5)
        if at:
            drawing.line(56 + band * at, y.end, 56 + band * at, y.start, "grid faint")
        if turned:
            drawing.text(x + 4, y.start + 12, f"{name} · {size}", "muted", "end", turn=-40)
        else:
            drawing.text(x, y.start + 14, name, "ink", "middle")
            drawing.text(x, y.start + 31, shortened(size, band, 11), "muted small", "middle")
    words = f"{caption} · training images" if turned and caption == "class" else caption
    drawing.text((56 + WIDTH - 14) / 2, bottom + 12, words, "ink", "middle")


def _series(
    drawing: Drawing,
    y: Axis,
    look: Look,
    name: str,
    places: Sequence[tuple[float, float | None]],
    labels: Sequence[str],
) -> None:
    known = [(x, y(value)) for x, value in places if value is not None]
    drawing.path(known, f"{look.colour} thin", look.width * 0.6, look.dash)
    for (x, value), label in zip(places, labels, strict=True):
        if value is not None:
            drawing.marker(look.shape, x, y(value), 3.8, look.colour, f"{name}, {label}: {value:.1f} %")


# The searches


def best_so_far(found: ComparisonModel, level: LevelModel, looks: Looks, key: str) -> Figure | None:
    """The best score of each search against the epochs that it had spent."""
    steps = {one.contestant: _steps(one) for one in level.contestants if one.search.points}
    if not steps:
        return None
    images = "test" if found.protocol == "article" else "validation"
    about = (
        f"The best {found.label} on {images} images that each search had found after so many epochs of training, "
        "pruned trials included; each line ends with its search."
    )
    scores = [score for line in steps.values() for _, score in line]
    drawing = Drawing(
        key, WIDTH, 330, "Best so far", "; ".join(f"{name} ends at {line[-1][1]:.1f}" for name, line in steps.items())
    )
    low, high = padded(scores, least=1.0)
    y = Axis(max(low, 0.0), min(high, 100.5), 276, 14)
    x = Axis(0, max(line[-1][0] for line in steps.values()) * 1.02, 60, WIDTH - 18)
    for tick in y.ticks(6):
        drawing.line(60, y(tick), WIDTH - 18, y(tick), "grid")
        drawing.text(52, y(tick), f"{tick:g}", "muted", "end")
    for tick in x.ticks(9):
        drawing.line(x(tick), 276, x(tick), 281, "muted")
        drawing.text(x(tick), 293, f"{tick:,.0f}", "muted", "middle")
    drawing.line(60, 276, WIDTH - 18, 276, "muted")
    drawing.text((60 + WIDTH - 18) / 2, 316, "epochs spent by the search", "ink", "middle")
    drawing.text(12, 145, f"best {found.label} so far, points", "ink", "middle", turn=-90)
    names = [name for name in contestants_of(found) if name in steps]
    for name in names:
        look, line = looks.by_name[name], steps[name]
        drawing.path([(x(spent), y(score)) for spent, score in line], look.colour, look.width, look.dash)
        spent, score = line[-1]
        drawing.marker(look.shape, x(spent), y(score), 5, f"{look.colour} ringed", f"{name}: {score:.1f}")
    return Figure("Best score so far", about, [drawing.markup()], looks.legend(names))


def _steps(one: ContestantModel) -> list[tuple[float, float]]:
    """Corners of a step line: epochs spent, and the best score in points."""
    found: list[tuple[float, float]] = []
    for point in one.search.points:
        score = 100 * point.score
        best = max(score, found[-1][1]) if found else score
        if found and best > found[-1][1]:
            found.append((point.epochs_spent, found[-1][1]))
        found.append((point.epochs_spent, best))
    return found


# Maps of λ and σ


def maps(found: ComparisonModel, level: LevelModel, key: str) -> Figure | None:
    """A map for each contestant that searched λ and σ, all with the same colours."""
    chosen = [one for one in level.contestants if any(_on_map(point.params) for point in one.search.points)]
    if not chosen:
        return None
    scores = [100 * point.score for one in chosen for point in one.search.points if _on_map(point.params)]
    scale = Axis(*padded(scores, 0.0, least=0.5), 230, 40)
    images = "test" if found.protocol == "article" else "validation"
    about = (
        f"Each mark is a trial of the search at its λ (margin) and σ (width); its colour is its {found.label} on "
        f"{images} images. Small marks are pruned trials; the ring is around the settings that were chosen."
    )
    drawn = [_map(one, scale, f"{key}-{at}", found.label) for at, one in enumerate(chosen)]
    return Figure("Where in λ and σ the search looked", about, drawn)


def _on_map(params: dict[str, Any]) -> bool:
    return params.get("lambda", 0) > 0 and params.get("sigma", 0) > 0


def _map(one: ContestantModel, scale: Axis, key: str, label: str) -> Markup:
    told = [point for point in one.search.points if _on_map(point.params)]
    best = max(told, key=lambda point: point.score)
    words = f"{len(told)} trials; the best has λ {number(best.params['lambda'])} and σ {number(best.params['sigma'])}"
    drawing = Drawing(key, 460, 330, f"λ and σ of {one.contestant}", words)
    x = Axis(*padded_log([point.params["lambda"] for point in told]), 58, 372, log=True)
    y = Axis(*padded_log([point.params["sigma"] for point in told]), 276, 40, log=True)
    _map_axes(drawing, x, y)
    drawing.text(58, 18, shortened(one.contestant, 380), "ink strong")
    for point in sorted(told, key=lambda point: point.score):  # the best on top
        at = x(point.params["lambda"]), y(point.params["sigma"])
        hint = f"trial {point.trial}: {100 * point.score:.1f}, λ {number(point.params['lambda'])}"
        made = drawing.add("circle", "dot", f"{hint}, σ {number(point.params['sigma'])}", cx=at[0], cy=at[1])
        made.set("r", "4" if point.pruned else "7")
        made.set("fill", _colour(scale, 100 * point.score))
    if one.params and _on_map(one.params) and one.search.trial is not None:
        ring = x.clipped(one.params["lambda"]), y.clipped(one.params["sigma"])
        drawing.add("circle", "ink ring", f"chosen: {settings_text(one)}", cx=ring[0], cy=ring[1], r=11.0)
    _colour_bar(drawing, scale, label)
    return drawing.markup()


def _map_axes(drawing: Drawing, x: Axis, y: Axis) -> None:
    for tick in x.ticks():
        drawing.line(x(tick), y.start, x(tick), y.end, "grid")
        drawing.text(x(tick), y.start + 16, f"{tick:g}", "muted", "middle")
    for tick in y.ticks():
        drawing.line(x.start, y(tick), x.end, y(tick), "grid")
        drawing.text(x.start - 8, y(tick), f"{tick:g}", "muted", "end")
    drawing.line(x.start, y.start, x.end, y.start, "muted")
    drawing.line(x.start, y.start, x.start, y.end, "muted")
    drawing.text((x.start + x.end) / 2, y.start + 38, "λ (log scale)", "ink", "middle")
    drawing.text(12, (y.start + y.end) / 2, "σ (log scale)", "ink", "middle", turn=-90)


def _colour(scale: Axis, score: float) -> str:
    share = (score - scale.low) / (scale.high - scale.low)
    return str(to_hex(colormaps["viridis"](min(max(share, 0.0), 1.0))))


def _colour_bar(drawing: Drawing, scale: Axis, label: str) -> None:
    drawing.text(452, 18, shortened(label, 130), "muted small", "end")
    steps = 40
    for at in range(steps):
        value = scale.low + (scale.high - scale.low) * (at + 0.5) / steps
        height = (scale.start - scale.end) / steps
        top = scale.start - (at + 1) * height
        drawing.add("rect", x=392.0, y=top, width=14.0, height=height + 0.6, fill=_colour(scale, value))
    for tick in scale.ticks(5):
        drawing.text(412, scale(tick), f"{tick:g}", "muted")
