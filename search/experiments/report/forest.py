"""The forest plot: each rival's paired difference to the baseline, with its intervals."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from affinity_search.search.experiments.document import ComparisonModel, ContestantModel, IntervalModel, LevelModel
from affinity_search.search.experiments.report.drawing import Axis, Drawing, padded, shortened, text_width
from affinity_search.search.experiments.report.looks import WIDTH, Figure
from affinity_search.search.experiments.report.words import Shown, ends, points, shown_verdict

VERDICT_SHAPES = {"better": "triangle", "worse": "down", "none": "circle"}


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
    left = 16 + min(250.0, max(text_width(one.contestant) for one, _ in rows))
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
    key, look = Drawing.small(34, 14), kind or "open-verdict"
    key.line(2, 7, 32, 7, look, 4)
    key.marker(VERDICT_SHAPES.get(kind, "diamond"), 17, 7, 4.5, f"{look} ringed")
    return key.markup()
