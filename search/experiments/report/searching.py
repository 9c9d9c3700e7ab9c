"""How the searches went: the best score against the epochs spent, and maps of the trials over λ and σ."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex

from affinity_search.search.experiments.document import ComparisonModel, ContestantModel, LevelModel
from affinity_search.search.experiments.report.drawing import Axis, Drawing, padded, padded_log, shortened
from affinity_search.search.experiments.report.looks import WIDTH, Figure, Looks, legend_of
from affinity_search.search.experiments.report.words import contestants_of, number, settings_text


def best_so_far(found: ComparisonModel, level: LevelModel, looks: Looks, key: str) -> Figure | None:
    """The best score of each search against the epochs that it had spent; None where nobody had a choice."""
    steps = {one.contestant: _steps(one) for one in level.contestants if one.search.points}
    if all(len(one.search.points) < 2 for one in level.contestants):
        return None
    images = "test" if found.protocol == "article" else "validation"
    about = (
        f"The best {found.label} on {images} images that each search had found after so many epochs of training, "
        "pruned trials (stopped early) included; each line ends with its search."
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
        look, line = looks[name], steps[name]
        drawing.path([(x(spent), y(score)) for spent, score in line], look.colour, look.width, look.dash)
        spent, score = line[-1]
        drawing.marker(look.shape, x(spent), y(score), 5, f"{look.colour} ringed", f"{name}: {score:.1f}")
    return Figure("Best score so far", about, [drawing.markup()], legend_of(looks, names))


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


def _on_map(params: Mapping[str, float]) -> bool:
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
