"""How a snapshot looks: the live view in a terminal, and plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from affinity_search.search.view.snapshot import Best, ComparisonSnapshot, Running, Snapshot, take, take_comparison
from affinity_search.search.view.tables import Column, Fitted
from affinity_search.storage.stored.agenda import Agenda
from affinity_search.storage.stored.comparisons import StoredComparison
from affinity_search.studies.heads import HeadDefinition
from affinity_search.studies.metrics import METRICS


def params_text(params: dict[str, float | int], head: HeadDefinition) -> str:
    """`λ 0.435, σ 90.7, m 10`; without parameters the head's name."""
    return ", ".join(f"{head.symbol(name)} {value:.4g}" for name, value in params.items()) or head.name


def duration_text(seconds: float | None) -> str:
    """Such as `3 min 20 s`; `?` if unknown."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def best_text(best: Best | None, protocol: str, *, explain: bool = True) -> str:
    """The best score, and the images that it was chosen on. Under `article` these are the test images.

    With `explain` it says what a symbol means. Repeated lines need that only once.
    """
    if best is None:
        return "none finished yet"
    images = "test" if protocol == "article" else "validation"
    params = params_text(best.params, best.head) + (f" ({best.head.legend})" if explain and best.head.legend else "")
    return f"{best.label} {best.score:.4f} on {images} images ({protocol}), trial {best.trial}: {params}"


def outcome_text(snapshot: Snapshot) -> str:
    """What the study has reached: its best score, or the mean of its final runs."""
    if not snapshot.is_final:
        return f"best {best_text(snapshot.best, snapshot.protocol)}"
    if snapshot.tested is None:
        return "final runs: none finished yet"
    mean, runs = snapshot.tested
    return (
        f"final runs: mean {snapshot.label} {mean:.4f} on test images ({snapshot.protocol}) over {plural(runs, 'run')}"
    )


def others_text(best: Best) -> str:
    """The best trial's other metrics."""
    told = [(METRICS[key].label, value) for key, value in best.metrics.items() if METRICS[key].label != best.label]
    return ", ".join(f"{label} {value:.4f}" for label, value in told)


def counts_text(snapshot: Snapshot) -> str:
    counts = snapshot.counts
    return (
        f"{counts.used} of {counts.total} trials done: {counts.complete} complete, {counts.pruned} pruned, "
        f"{counts.failed} failed; {counts.running} running"
        + (f"; {plural(counts.closed, 'place')} closed" if counts.closed else "")
    )


def left_text(snapshot: Snapshot) -> str:
    """How long the rest takes, or why nobody can say."""
    if not snapshot.running:
        return "unknown: no worker runs"
    return "known in the first epoch" if snapshot.left_s is None else _estimate(snapshot)


def _estimate(snapshot: Snapshot) -> str:
    most = "at most " if snapshot.left_is_most else ""
    return f"{most}about {rough_text(snapshot.left_s or 0.0)}"


def rough_text(seconds: float) -> str:
    """A rounded estimate, with no more digits than it is worth."""
    for least, step in ((4 * 3600.0, 1800), (3600.0, 600), (600.0, 60), (120.0, 30)):
        if seconds >= least:
            return duration_text(step * round(seconds / step)).removesuffix(" 0 s").removesuffix(" 0 min")
    return duration_text(10 * math.ceil(seconds / 10))


def notices(snapshot: Snapshot) -> list[str]:
    """What a person should know in addition."""
    lines = []
    if snapshot.stopped:
        study = shlex.quote(snapshot.study)
        lines.append(f"stopped: no new trials; to go on: affinity-search launch {study}")
    if snapshot.closed:
        lines.append(snapshot.closed.text(snapshot.study))
    return lines + foreign_lines(snapshot)


def foreign_lines(snapshot: Snapshot) -> list[str]:
    """Trials in the study that no worker trains."""
    lines = []
    if snapshot.foreign:
        trials = "1 trial was" if snapshot.foreign == 1 else f"{snapshot.foreign} trials were"
        lines.append(
            f"{trials} added to this study by another program (as `study.enqueue_trial` does); no worker trains such "
            "trials, and they do not count"
        )
    return lines


def failure_lines(snapshot: Snapshot, most: int = 3) -> list[str]:
    """Why places were used up without a value."""
    return [f"failed ({count}): {reason}" for reason, count in list(snapshot.failures.items())[:most]]


def plural(count: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def plain_line(snapshot: Snapshot) -> str:
    """The budget in one line, for logs."""
    left = f"; {_estimate(snapshot)} left" if snapshot.left_s else ""
    at = [f"{epochs_done(one)}/{snapshot.epochs}" for one in snapshot.running if one.epoch or one.share]
    epochs = f" (epoch {', '.join(at)})" if at else ""
    return counts_text(snapshot) + epochs + left


def panel(snapshot: Snapshot, hint: str = "", starting: str = "") -> RenderableType:
    """The live view: budget, best, workers, time left."""
    counts = snapshot.counts
    head = Text.assemble(
        (snapshot.study, "bold"),
        f"  {snapshot.title}, {snapshot.imbalance}, {snapshot.epochs} epochs, protocol {snapshot.protocol}",
    )
    bar = Table.grid()  # a bar of its own writes no end of line
    bar.add_row(ProgressBar(total=counts.total, completed=counts.used, width=60))
    parts: list[RenderableType] = [
        head,
        bar,
        Text(counts_text(snapshot)),
        Text(outcome_text(snapshot)),
    ]
    if snapshot.best is not None and (others := others_text(snapshot.best)):
        parts.append(Text(f"     {others}", style="dim"))
    parts += [Text(line, style="red") for line in failure_lines(snapshot)]
    parts += [Text(line, style="yellow") for line in notices(snapshot)]
    if snapshot.running:
        parts.append(_workers_table(snapshot))
    if starting:
        parts.append(Text(starting))
    if counts.used < counts.total and not (starting and not snapshot.running):
        parts.append(Text(f"time left  {left_text(snapshot)}"))
    if hint:
        parts.append(Text(hint, style="dim"))
    return Group(*parts)


def epochs_done(running: Running) -> str:
    """`7`, and within the first epoch `0.35`."""
    return f"{running.share:.2f}" if running.share and not running.epoch else str(running.epoch)


def starting_text(starting: int) -> str:
    """What workers do before their first trial; it takes ten seconds or more."""
    return f"{plural(starting, 'worker')} starting: importing {backend_name()}, reading the images"


def backend_name() -> str:
    from affinity_search.search.devices.packages import backend

    return {"tensorflow": "TensorFlow", "jax": "JAX"}.get(backend(), "Keras")


def _workers_table(snapshot: Snapshot) -> Fitted:
    columns = [Column("worker", rank=2), Column("device", rank=3), Column("trial", right=True)]
    columns += [
        Column("epoch", right=True),
        Column(f"best {snapshot.label}", right=True),
        Column("for", right=True, rank=1),
    ]
    return Fitted(columns, [_worker_row(running, snapshot.epochs) for running in snapshot.running])


def _worker_row(running: Running, epochs: int) -> tuple[str, ...]:
    return (
        running.worker,
        running.device,
        "-" if running.trial is None else str(running.trial),
        f"{epochs_done(running)}/{epochs}",
        "-" if running.score is None else f"{running.score:.4f}",
        duration_text(running.since_s),
    )


def look(agenda: Agenda, workers: int) -> Snapshot | ComparisonSnapshot:
    """The present state of what a launch works on."""
    if isinstance(agenda, StoredComparison):
        return take_comparison(agenda, workers)
    (study,) = agenda.studies
    return take(study, workers)


def comparison_line(snapshot: ComparisonSnapshot) -> str:
    """How far a comparison is, in one line, for logs."""
    searches = [one.search for one in snapshot.contests]
    finals = [one.final for one in snapshot.contests if one.final]
    runs = snapshot.total - sum(one.total for one in searches)
    left = f"; about {rough_text(snapshot.left_s)} left" if snapshot.left_s else ""
    failed = f", {snapshot.failed} failed" if snapshot.failed else ""
    return (
        f"{snapshot.used} of {snapshot.total} trainings done: {sum(one.used for one in searches)} of "
        f"{sum(one.total for one in searches)} places searched, {sum(one.used for one in finals)} of {runs} final runs"
        f"{failed}{left}"
    )


def comparison_panel(snapshot: ComparisonSnapshot, hint: str = "", starting: str = "") -> RenderableType:
    """The live view of a comparison: its whole progress, every contestant's, and the workers."""
    bar = Table.grid()
    bar.add_row(ProgressBar(total=max(snapshot.total, 1), completed=snapshot.used, width=60))
    parts: list[RenderableType] = [
        Text.assemble((snapshot.comparison, "bold"), f"  comparison by {snapshot.label}, {snapshot.draws} draws"),
        bar,
        Text(comparison_line(snapshot)),
    ]
    if snapshot.stopped:
        parts.append(Text("stopped: no new trials; `affinity-search compare` goes on", style="yellow"))
    parts.append(_contests_table(snapshot))
    if snapshot.running:
        columns = [Column("worker", rank=2), Column("device", rank=3), Column("study"), Column("epoch", right=True)]
        rows = [
            [one.worker, one.device, study, f"{epochs_done(one)}/{epochs}"] for study, epochs, one in snapshot.running
        ]
        parts.append(Fitted(columns, rows))
    parts += [Text(starting)] if starting else []
    parts += [Text(hint, style="dim")] if hint else []
    return Group(*parts)


def _contests_table(snapshot: ComparisonSnapshot) -> Fitted:
    levels = any(one.level for one in snapshot.contests)
    columns = [*([Column("level")] if levels else []), Column("contestant"), Column("searched", right=True)]
    columns += [Column("best on validation", right=True, rank=2), Column("final runs", right=True)]
    columns += [Column(f"mean {snapshot.label} on test", right=True, rank=1)]
    rows = []
    for one in snapshot.contests:
        final = f"{one.final.used}/{one.final.total}" if one.final else f"0/{snapshot.draws}"
        scores = ["-" if score is None else f"{score:.4f}" for score in (one.best, one.mean)]
        own = [one.contestant, f"{one.search.used}/{one.search.total}", scores[0], final, scores[1]]
        rows.append([one.level, *own] if levels else own)
    return Fitted(columns, rows)


REFRESH_S = 1.0
BUSY_S = 5.0  # of a comparison, at most one line so often
QUIET_S = 60.0  # seconds without a line; then one says that the search goes on
HINT = "Ctrl-C once: finish the running trials; twice: give them back and stop now"


class Progress(Protocol):
    """Shows the state of a launcher and its messages."""

    def show(self, agenda: Agenda, workers: Sequence[str] = ()) -> None:
        """Show the study's present state and what these workers do. May be called at any rate."""

    def say(self, message: str) -> None:
        """One line for the person."""


class LivePanel:
    """Redraws a panel at most once in `REFRESH_S`: every redraw is a few database queries."""

    def __init__(self, live: Live, hint: Callable[[], str]) -> None:
        self._live = live
        self._hint = hint
        self._looked = float("-inf")
        self._started = time.monotonic()
        self._begun: set[str] = set()  # workers that have had a place
        self._most = 0  # how many worked at once

    def show(self, agenda: Agenda, workers: Sequence[str] = ()) -> None:
        if time.monotonic() - self._looked < REFRESH_S:
            return
        self._looked = time.monotonic()
        snapshot = look(agenda, max(len(workers), self._most))
        running = (
            [one for _, _, one in snapshot.running] if isinstance(snapshot, ComparisonSnapshot) else snapshot.running
        )
        self._begun |= {one.worker for one in running}
        self._most = max(self._most, len(running)) if not workers else len(workers)
        starting = len(set(workers) - self._begun)
        lasts = f" ({duration_text(time.monotonic() - self._started)})"
        shown = starting_text(starting) + lasts if starting else ""
        if isinstance(snapshot, ComparisonSnapshot):
            self._live.update(comparison_panel(snapshot, self._hint(), shown), refresh=True)
        else:
            self._live.update(panel(snapshot, self._hint(), shown), refresh=True)

    def say(self, message: str) -> None:
        self._live.console.print(message, markup=False)


class PlainLines:
    """Writes a line when a place is used, when a worker comes or goes, for a new best trial, and from time to time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[int, int] | None = None
        self._best: Best | None = None
        self._looked = self._said = float("-inf")

    def show(self, agenda: Agenda, workers: Sequence[str] = ()) -> None:
        if time.monotonic() - self._looked < REFRESH_S:
            return
        self._looked = time.monotonic()
        snapshot = look(agenda, len(workers))
        if isinstance(snapshot, ComparisonSnapshot):
            self._show_comparison(snapshot, len(workers))
            return
        if snapshot.counts.used == snapshot.counts.total:
            return  # the caller tells how the search ended
        word = "best so far:" if self._last is None else "new best"
        if self._last is None and workers:
            self.say(starting_text(len(workers)))
        if self._last != _key(snapshot) or (snapshot.running and time.monotonic() - self._said >= QUIET_S):
            self._last = _key(snapshot)
            self.say(plain_line(snapshot))
        if self._best != snapshot.best:
            self._best = snapshot.best
            self.say(f"{word} {best_text(snapshot.best, snapshot.protocol)}")

    def _show_comparison(self, snapshot: ComparisonSnapshot, workers: int) -> None:
        """A line when places are used, but not for each of hundreds."""
        if self._last is None and workers:
            self.say(starting_text(workers))
        key = snapshot.used, len(snapshot.running)
        waited = time.monotonic() - self._said
        if self._last is None or (key != self._last and waited >= BUSY_S) or waited >= QUIET_S:
            self._last = key
            self.say(comparison_line(snapshot))

    def say(self, message: str) -> None:
        self._said = time.monotonic()
        self._console.print(f"{time.strftime('%H:%M:%S')} {message}", markup=False)


def _key(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.counts.used, snapshot.counts.running


@contextlib.contextmanager
def progress_for(agenda: Agenda, hint: Callable[[], str]) -> Iterator[Progress]:
    """A live panel with `hint` below it if stderr is a terminal, else plain lines."""
    console = Console(stderr=True, highlight=False, emoji=False)
    if not console.is_terminal:
        yield PlainLines(Console(stderr=True, highlight=False, emoji=False, soft_wrap=True))
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:  # what follows tells how it ended
        panel_ = LivePanel(live, hint)
        panel_.show(agenda)
        yield panel_
