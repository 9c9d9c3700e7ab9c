"""The figures of a whole study for the dashboard: scores over trials and over time, by parameter and by worker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from affinity_search.search.view.figures.ticks import log_ticks
from affinity_search.search.view.terminal import params_text
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.studies.heads import HeadDefinition, HeadParameter
from affinity_search.studies.metrics import DEFAULT, METRICS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# A figure is stored in pieces of 2 kB and sent with the study. With more trials than this, it shows an even choice and
# the best.
MOST_POINTS = 500
# The page may be light or dark. So a figure has no background, and its greys can be read on both.
CLEAR, GREY, FAINT = "rgba(0,0,0,0)", "#808080", "rgba(128,128,128,0.25)"
LINES = {"gridcolor": FAINT, "zerolinecolor": FAINT}
STATES = {
    "complete": {"symbol": "circle", "size": 9},
    "pruned (best of its epochs)": {"symbol": "x-thin-open", "size": 6},
}
COMPLETE, PRUNED = STATES
ENDED = {TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: PRUNED}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class Point:
    """A trial that has a score: complete, or pruned with the best of its epochs."""

    trial: int
    state: str  # a key of STATES
    score: float  # by the study's metric
    minority_f1: float
    majority_f1: float
    duration_s: float
    worker: str
    params: dict[str, float | int]
    spent_s: float  # training time of all trials up to its end


Of = Callable[[Point], float]


def points_of(trials: Sequence[FrozenTrial], metric: str = DEFAULT) -> list[Point]:
    """Complete and pruned trials in the order of their end."""
    found, spent_s = [], 0.0
    ended = [trial for trial in trials if trial.state in ENDED]
    for trial in sorted(ended, key=lambda t: (t.datetime_complete or t.datetime_start, t.number)):
        facts = TrialFacts.of(trial)
        if (scores := facts.scores) is None:
            continue
        spent_s += scores.duration_s
        point = Point(
            trial=trial.number,
            state=ENDED[trial.state],
            score=scores.metrics[metric],
            minority_f1=scores.minority_f1,
            majority_f1=scores.majority_f1,
            duration_s=scores.duration_s,
            worker=facts.worker or "?",
            params=trial.params,
            spent_s=spent_s,
        )
        found.append(point)
    return found


@dataclass(frozen=True)
class About:
    """What the figures need to know about their study."""

    protocol: str
    head: HeadDefinition  # whose parameters are shown
    log: Collection[str] = ()  # the parameters on a log scale
    label: str = METRICS[DEFAULT].label  # what the score is called


def figures(points: Sequence[Point], about: About) -> dict[str, Figure]:
    """The figures by their ids in the dashboard. Empty without a score."""
    if not points:
        return {}
    shown, head = _thinned(points), about.head
    known = set(points[0].params)
    made = {
        "best-value": _best(points, about),
        "minority-majority": _minority_majority(shown, about),
        "time-by-worker": _time_by_worker(shown),
    }
    pairs = [pair for pair in head.together if known.issuperset(pair)]
    for x, y in pairs:
        made[f"{x}-{y}"] = _plane(shown, about, x, y)
    paired = {key for pair in pairs for key in pair}
    for parameter in head.searchable:
        if parameter.key in known - paired:
            made[f"f1-by-{parameter.key.replace('_', '-')}"] = _by_parameter(shown, about, parameter)
    return made


def _thinned(points: Sequence[Point]) -> list[Point]:
    step = -(-len(points) // MOST_POINTS)
    best = max(points, key=lambda point: point.score)
    kept = list(points[::step])
    return kept if best in kept else [*kept, best]


def _figure(title: str, x: str, y: str, **layout: Any) -> Figure:
    from plotly.graph_objects import Figure

    figure = Figure()
    # The dashboard puts plotly's buttons into the top right corner. So the title is below them, and the legend below
    # the figure.
    heading = {"text": title, "x": 0.02, "y": 0.91, "font": {"size": 15}}
    margin = {"l": 60, "r": 20, "t": 70, "b": 50}
    legend = {"orientation": "h", "y": -0.2}
    figure.update_layout(title=heading, template="none", margin=margin, legend=legend, height=440, **layout)
    buttons = {"bgcolor": CLEAR, "color": GREY, "activecolor": GREY}
    figure.update_layout(paper_bgcolor=CLEAR, plot_bgcolor=CLEAR, font={"color": GREY}, modebar=buttons)
    figure.update_xaxes(title=x, **LINES)
    figure.update_yaxes(title=y, **LINES)
    return figure


def _hover(points: Sequence[Point], about: About) -> list[str]:
    """Short, because it is stored and sent for every point of every figure."""
    return [f"trial {p.trial}: {p.score:.4f}<br>{params_text(p.params, about.head)}" for p in points]


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _best(points: Sequence[Point], about: About) -> Figure:
    """Only the trials that were a new best, and the last one: steps need no more points."""
    steps: list[Point] = []
    for point in points:
        if not steps or point.score > steps[-1].score:
            steps.append(point)
    best = [point.score for point in steps]
    label, grid = about.label, {"rows": 1, "columns": 2, "pattern": "independent"}
    figure = _figure(f"Best {label} ({about.protocol})", "", label, grid=grid)
    number = {id(point): index for index, point in enumerate(points, start=1)}
    by_count: list[float] = [number[id(point)] for point in steps]
    by_time = [point.spent_s for point in steps]
    for axis, x, last, title in (
        ("", by_count, len(points), "complete and pruned trials"),
        ("2", by_time, points[-1].spent_s, "training time spent, s"),
    ):
        figure.add_scatter(
            x=_rounded([*x, last]),
            y=_rounded([*best, best[-1]]),
            mode="lines+markers",
            line={"shape": "hv", "color": COLOURS[0]},
            text=_hover([*steps, steps[-1]], about),
            xaxis=f"x{axis}",
            yaxis=f"y{axis}",
            showlegend=False,
        )
        figure.update_layout({f"xaxis{axis}": {"title": title} | LINES, f"yaxis{axis}": LINES})
    return figure


def _scatter(figure: Figure, points: Sequence[Point], about: About, x: Of, y: Of, colour: Of | None = None) -> None:
    """A trace for each state. Complete trials are drawn over the pruned ones."""
    for state in (PRUNED, COMPLETE):
        mine = [point for point in points if point.state == state]
        if mine:
            marker = STATES[state] | {"line": {"width": 1.5}, "color": COLOURS[0]}
            marker |= {"color": _rounded(map(colour, mine)), "coloraxis": "coloraxis"} if colour else {}
            places = {"x": _rounded(map(x, mine)), "y": _rounded(map(y, mine)), "text": _hover(mine, about)}
            figure.add_scatter(**places, mode="markers", name=state, hoverinfo="text", marker=marker, showlegend=False)
            # In the legend a marker with a colour for each point is black, and a dark page hides it.
            grey = STATES[state] | {"line": {"width": 1.5}, "color": GREY}
            figure.add_scatter(x=[None], y=[None], mode="markers", name=state, marker=grey, showlegend=True)


def _by_score(figure: Figure, points: Sequence[Point], about: About, x: Of, y: Of) -> None:
    figure.update_layout(coloraxis={"colorscale": "Viridis", "colorbar": {"title": about.label}})
    _scatter(figure, points, about, x, y, lambda point: point.score)


def _plane(points: Sequence[Point], about: About, x: str, y: str) -> Figure:
    """Two parameters as axes, and the score as a colour."""
    symbols = " and ".join(map(about.head.symbol, (x, y)))
    figure = _figure(f"{symbols}, coloured by {about.label} ({about.protocol})", x, y)
    _by_score(figure, points, about, lambda point: point.params[x], lambda point: point.params[y])
    for axis, name in ((figure.update_xaxes, x), (figure.update_yaxes, y)):
        if name in about.log:
            axis(_log_axis([point.params[name] for point in points]))
    return figure


def _log_axis(values: Sequence[float]) -> dict[str, Any]:
    ticks = log_ticks(min(values), max(values))
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _by_parameter(points: Sequence[Point], about: About, parameter: HeadParameter) -> Figure:
    key, label = parameter.key, about.label
    figure = _figure(f"{label[:1].upper()}{label[1:]} by {parameter.about} ({about.protocol})", key, label)
    _scatter(figure, points, about, lambda point: point.params[key], lambda point: point.score)
    if key in about.log:
        figure.update_xaxes(_log_axis([point.params[key] for point in points]))
    return figure


def _minority_majority(points: Sequence[Point], about: About) -> Figure:
    figure = _figure(f"Minority against majority classes ({about.protocol})", "majority F1", "minority F1")
    _by_score(figure, points, about, lambda point: point.majority_f1, lambda point: point.minority_f1)
    low = min(min(point.majority_f1, point.minority_f1) for point in points)
    line = {"color": "#999999", "dash": "dot"}
    figure.add_scatter(
        x=[low, 1], y=[low, 1], mode="lines", line=line, name="equal", hoverinfo="skip", showlegend=False
    )
    return figure


def _time_by_worker(points: Sequence[Point]) -> Figure:
    figure = _figure("Time of a trial by worker (× pruned)", "trial", "seconds")
    workers = sorted({point.worker for point in points})
    for number, worker in enumerate(workers):
        mine = [point for point in points if point.worker == worker]
        symbols, sizes = ([STATES[point.state][key] for point in mine] for key in ("symbol", "size"))
        colour = COLOURS[number % len(COLOURS)]
        marker = {"color": colour, "symbol": symbols, "size": sizes, "line": {"width": 1.5, "color": colour}}
        places = {"x": [point.trial for point in mine], "y": _rounded(point.duration_s for point in mine)}
        places["text"] = [f"trial {point.trial}: {point.duration_s:.1f} s" for point in mine]
        figure.add_scatter(**places, mode="markers", name=worker, hoverinfo="text", marker=marker, showlegend=True)
    return figure
