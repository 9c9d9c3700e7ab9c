"""How a snapshot looks in a terminal: the live view, and plain lines where there is none."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.snapshot import Best, Running, Snapshot

SYMBOLS = {"lambda": "λ", "sigma": "σ", "n_centers": "m"}


def params_text(params: dict[str, float | int]) -> str:
    """λ 0.435, σ 90.7, m 10; `softmax` without parameters."""
    return ", ".join(f"{SYMBOLS.get(name, name)} {value:.4g}" for name, value in params.items()) or "softmax"


def duration_text(seconds: float | None) -> str:
    """`3 min 20 s` and the like; `?` where unknown."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def best_text(best: Best | None, protocol: str) -> str:
    """The best value with the protocol's name beside it: under `article` it is chosen on the test split."""
    if best is None:
        return "none finished yet"
    return f"{best.value:.4f} = 1 − macro F1 {best.macro_f1:.4f} ({protocol}), trial {best.trial}: " + params_text(
        best.params
    )


def counts_text(snapshot: Snapshot) -> str:
    counts = snapshot.counts
    return (
        f"{counts.used} of {counts.total} used: {counts.complete} complete, {counts.pruned} pruned, "
        f"{counts.failed} failed; {counts.running} running"
    )


def failure_lines(snapshot: Snapshot, most: int = 3) -> list[str]:
    """Why places were spent without a value."""
    return [f"failed ({count}): {reason}" for reason, count in list(snapshot.failures.items())[:most]]


def plural(count: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def plain_line(snapshot: Snapshot) -> str:
    """The budget in one line, for logs."""
    left = f"; about {duration_text(snapshot.left_s)} left" if snapshot.left_s else ""
    return counts_text(snapshot) + left


def panel(snapshot: Snapshot, hint: str = "") -> RenderableType:
    """The live view: budget, best, workers, time left."""
    counts = snapshot.counts
    head = Text.assemble(
        (snapshot.study, "bold"),
        f"  {snapshot.dataset}, n = {snapshot.minority}, {snapshot.epochs} epochs, protocol {snapshot.protocol}",
    )
    bar = Table.grid()  # a bar of its own writes no end of line
    bar.add_row(ProgressBar(total=counts.total, completed=counts.used, width=60))
    left = Text(f"time left  {duration_text(snapshot.left_s) if snapshot.left_s else '?'}")
    parts: list[RenderableType] = [
        head,
        bar,
        Text(counts_text(snapshot)),
        Text(f"best  {best_text(snapshot.best, snapshot.protocol)}"),
    ]
    parts += [Text(line, style="red") for line in failure_lines(snapshot)]
    if snapshot.running:
        parts.append(_workers_table(snapshot))
    if counts.used < counts.total:
        parts.append(left)
    if hint:
        parts.append(Text(hint, style="dim"))
    return Group(*parts)


def _workers_table(snapshot: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("worker", "device", "trial", "epoch", "best F1", "for"):
        table.add_column(column, justify="left" if column in ("worker", "device") else "right")
    for running in snapshot.running:
        table.add_row(*_worker_row(running, snapshot.epochs))
    return table


def _worker_row(running: Running, epochs: int) -> tuple[str, ...]:
    return (
        escape(running.worker),
        escape(running.device),
        "-" if running.trial is None else str(running.trial),
        f"{running.epoch}/{epochs}",
        "-" if running.score is None else f"{running.score:.4f}",
        duration_text(running.since_s),
    )
