"""The figures of a whole study for the dashboard: what was found when and at what cost, where, and by whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from storage.attributes import SCORES, attributes

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# A figure is stored in pieces of 2 kB and sent with the study: of more trials, an even choice and the best is shown.
MOST_POINTS = 1000
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class Point:
    """One complete trial."""

    trial: int
    macro_f1: float
    minority_f1: float
    majority_f1: float
    duration_s: float
    worker: str
    params: dict[str, float | int]
    spent_s: float  # training time of all trials up to its end


def points_of(trials: Sequence[FrozenTrial]) -> list[Point]:
    """Complete trials in the order of their end; a pruned trial's time counts as spent."""
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED) and SCORES in t.user_attrs]
    found, spent_s = [], 0.0
    for trial in sorted(ended, key=lambda t: (t.datetime_complete or t.datetime_start, t.number)):
        scores = trial.user_attrs[SCORES]
        spent_s += scores["duration_s"]
        if trial.state == TrialState.COMPLETE:
            numbers = {key: scores[key] for key in ("macro_f1", "minority_f1", "majority_f1", "duration_s")}
            worker = str(attributes(trial).get("worker", "?"))
            found.append(Point(trial.number, **numbers, worker=worker, params=trial.params, spent_s=spent_s))
    return found


def figures(points: Sequence[Point], protocol: str) -> dict[str, Figure]:
    """By the id under which the dashboard keeps it; empty without a complete trial."""
    if not points:
        return {}
    shown = _thinned(points)
    made = {
        "best-value": _best(points, protocol),
        "minority-majority": _minority_majority(shown, protocol),
        "time-by-worker": _time_by_worker(shown),
    }
    if points[0].params:
        made |= {"lambda-sigma": _lambda_sigma(shown, protocol), "f1-by-n-centers": _by_centers(shown, protocol)}
    return made


def _thinned(points: Sequence[Point]) -> list[Point]:
    step = -(-len(points) // MOST_POINTS)
    best = max(points, key=lambda point: point.macro_f1)
    kept = list(points[::step])
    return kept if best in kept else [*kept, best]


def _figure(title: str, x: str, y: str, **layout: Any) -> Figure:
    from plotly.graph_objects import Figure

    figure = Figure()
    heading = {"text": title, "x": 0.02, "font": {"size": 15}}
    margin = {"l": 60, "r": 20, "t": 50, "b": 50}
    figure.update_layout(title=heading, template="none", margin=margin, height=420, **layout)
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure


def _hover(points: Sequence[Point]) -> list[str]:
    def text(point: Point) -> str:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in point.params.items())
        return f"trial {point.trial}: macro F1 {point.macro_f1:.4f}" + (f"<br>{shown}" if shown else "")

    return [text(point) for point in points]


def _best(points: Sequence[Point], protocol: str) -> Figure:
    """Only the trials that were a new best, and the last: a staircase needs no more."""
    steps: list[Point] = []
    for point in points:
        if not steps or point.macro_f1 > steps[-1].macro_f1:
            steps.append(point)
    best = [point.macro_f1 for point in steps]
    figure = _figure(
        f"Best macro F1 ({protocol})", "", "macro F1", grid={"rows": 1, "columns": 2, "pattern": "independent"}
    )
    number = {id(point): index for index, point in enumerate(points, start=1)}
    by_count: list[float] = [number[id(point)] for point in steps]
    by_time = [point.spent_s for point in steps]
    for axis, x, last, title in (
        ("", by_count, len(points), "complete trials"),
        ("2", by_time, points[-1].spent_s, "training time spent, s"),
    ):
        figure.add_scatter(
            x=[*x, last],
            y=[*best, best[-1]],
            mode="lines+markers",
            line={"shape": "hv", "color": COLOURS[0]},
            text=_hover([*steps, steps[-1]]),
            xaxis=f"x{axis}",
            yaxis=f"y{axis}",
            showlegend=False,
        )
        figure.update_layout({f"xaxis{axis or ''}": {"title": title}})
    return figure


def _coloured(points: Sequence[Point]) -> dict[str, Any]:
    scale = {"color": [point.macro_f1 for point in points], "colorscale": "Viridis", "showscale": True}
    return {"mode": "markers", "text": _hover(points), "marker": scale | {"size": 9, "colorbar": {"title": "F1"}}}


def _lambda_sigma(points: Sequence[Point], protocol: str) -> Figure:
    figure = _figure(f"λ and σ, coloured by macro F1 ({protocol})", "lambda", "sigma", yaxis_type="log")
    x, y = ([point.params[name] for point in points] for name in ("lambda", "sigma"))
    figure.add_scatter(x=x, y=y, **_coloured(points))
    return figure


def _by_centers(points: Sequence[Point], protocol: str) -> Figure:
    figure = _figure(f"Macro F1 by number of centres ({protocol})", "n_centers", "macro F1")
    x = [point.params["n_centers"] for point in points]
    marker = {"color": COLOURS[0], "size": 8}
    figure.add_scatter(x=x, y=[p.macro_f1 for p in points], mode="markers", text=_hover(points), marker=marker)
    return figure


def _minority_majority(points: Sequence[Point], protocol: str) -> Figure:
    figure = _figure(f"Minority against majority classes ({protocol})", "majority F1", "minority F1")
    x, y = [p.majority_f1 for p in points], [p.minority_f1 for p in points]
    figure.add_scatter(x=x, y=y, showlegend=False, **_coloured(points))
    low = min(*x, *y)
    line = {"color": "#999999", "dash": "dot"}
    figure.add_scatter(
        x=[low, 1], y=[low, 1], mode="lines", line=line, name="equal", hoverinfo="skip", showlegend=False
    )
    return figure


def _time_by_worker(points: Sequence[Point]) -> Figure:
    figure = _figure("Time of a complete trial by worker", "trial", "seconds")
    workers = sorted({point.worker for point in points})
    for number, worker in enumerate(workers):
        mine = [point for point in points if point.worker == worker]
        marker = {"color": COLOURS[number % len(COLOURS)], "size": 7}
        x, y = [point.trial for point in mine], [point.duration_s for point in mine]
        figure.add_scatter(x=x, y=y, mode="markers", name=worker, text=_hover(mine), marker=marker)
    return figure
