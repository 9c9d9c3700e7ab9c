"""How a snapshot looks in a terminal: the live view, and plain lines where there is none."""

from __future__ import annotations

import math
import shlex

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.fitting import Column, Fitted
from search.snapshot import Best, Running, Snapshot

SYMBOLS = {"lambda": "λ", "sigma": "σ", "n_centers": "m"}
CENTERS = "m: centres per class"


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


def best_text(best: Best | None, protocol: str, *, explain: bool = True) -> str:
    """The best score with the images that it was chosen on: under `article` these are the test images.

    `explain` says what m is; lines that come again and again need it once.
    """
    if best is None:
        return "none finished yet"
    images = "test" if protocol == "article" else "validation"
    params = params_text(best.params) + (f" ({CENTERS})" if explain and "n_centers" in best.params else "")
    return f"macro F1 {best.macro_f1:.4f} on {images} images ({protocol}), trial {best.trial}: {params}"


def counts_text(snapshot: Snapshot) -> str:
    counts = snapshot.counts
    return (
        f"{counts.used} of {counts.total} trials done: {counts.complete} complete, {counts.pruned} pruned, "
        f"{counts.failed} failed; {counts.running} running"
    )


def left_text(snapshot: Snapshot) -> str:
    """How long the rest takes, or why nobody can say."""
    if not snapshot.running:
        return "unknown: nobody is working on it"
    return "known in the first epoch" if snapshot.left_s is None else _estimate(snapshot)


def _estimate(snapshot: Snapshot) -> str:
    most = "at most " if snapshot.left_is_most else ""
    return f"{most}about {rough_text(snapshot.left_s or 0.0)}"


def rough_text(seconds: float) -> str:
    """An estimate, in as few digits as it deserves: it is read again every second."""
    for least, step in ((4 * 3600.0, 1800), (3600.0, 600), (600.0, 60), (120.0, 30)):
        if seconds >= least:
            return duration_text(step * round(seconds / step)).removesuffix(" 0 s").removesuffix(" 0 min")
    return duration_text(10 * math.ceil(seconds / 10))


def notices(snapshot: Snapshot) -> list[str]:
    """What a person should know beside the figures."""
    lines = []
    if snapshot.stopped:
        study = shlex.quote(snapshot.study)
        lines.append(f"stopped: no new trials; to go on: affinity-search launch {study}")
    return lines + foreign_lines(snapshot)


def foreign_lines(snapshot: Snapshot) -> list[str]:
    """What is in the study that nobody trains."""
    lines = []
    if snapshot.foreign:
        trials = "1 trial was" if snapshot.foreign == 1 else f"{snapshot.foreign} trials were"
        lines.append(
            f"{trials} put into this study by another program (as `study.enqueue_trial` does); no worker trains such "
            "trials, and they do not count"
        )
    return lines


def failure_lines(snapshot: Snapshot, most: int = 3) -> list[str]:
    """Why places were spent without a value."""
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
        f"  {snapshot.dataset}, n = {snapshot.minority}, {snapshot.epochs} epochs, protocol {snapshot.protocol}",
    )
    bar = Table.grid()  # a bar of its own writes no end of line
    bar.add_row(ProgressBar(total=counts.total, completed=counts.used, width=60))
    parts: list[RenderableType] = [
        head,
        bar,
        Text(counts_text(snapshot)),
        Text(f"best  {best_text(snapshot.best, snapshot.protocol)}"),
    ]
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
    from search.devices.packages import backend

    return {"tensorflow": "TensorFlow", "jax": "JAX"}.get(backend(), "Keras")


def _workers_table(snapshot: Snapshot) -> Fitted:
    columns = [Column("worker", rank=2), Column("device", rank=3), Column("trial", right=True)]
    columns += [Column("epoch", right=True), Column("best F1", right=True), Column("for", right=True, rank=1)]
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
