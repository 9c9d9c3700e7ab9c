"""The pictures of one trial, from its epochs: learning curve, confusion matrix, F1 by class size, loss diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from affinity_search.search.training.results import best_epochs, overall
from affinity_search.search.view.figures.affinity import loss_diagnostics
from affinity_search.search.view.figures.canvas import (
    BEST,
    MAJORITY,
    MINORITY,
    PLAIN,
    SECOND,
    png,
    styled,
    subplots,
)
from affinity_search.search.view.figures.classes import Class, are_named, name_axis
from affinity_search.search.view.figures.ticks import log_ticks
from affinity_search.studies.heads import DEFAULT as DEFAULT_HEAD
from affinity_search.studies.heads import HEADS, HeadDefinition
from affinity_search.studies.metrics import DEFAULT, METRICS, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from affinity_search.search.training.results import EpochScore

# The last for heads that tell what their loss does.
FILES = ("learning-curve.png", "confusion-matrix.png", "f1-by-class-size.png", "loss-diagnostics.png")
ROOM = 2.5  # beside the smallest and the largest class, as a factor, for names
GAP = 0.05  # of F1, between the names of two classes, which are that high


def draw(
    title: str,
    protocol: str,
    epochs: Sequence[EpochScore],
    class_sizes: Sequence[int],
    class_names: Sequence[str] = (),
    minority: Sequence[bool] = (),
    metric: Metric = METRICS[DEFAULT],
    head: HeadDefinition = HEADS[DEFAULT_HEAD],
) -> dict[str, bytes]:
    """PNG files by name. `epochs` are in order, at least one. `class_sizes` are the training images of each class.

    Without names, classes are shown by their numbers. Without `minority`, all are shown as large ones. The best epoch
    is the best by `metric`. There is a picture of the loss only if the head has diagnostics.
    """
    classes = [
        Class(class_names[number] if class_names else str(number), bool(minority) and minority[number])
        for number in range(len(class_sizes))
    ]
    best, bests = overall(epochs, metric.key), best_epochs(epochs, metric.key)
    reached = f"epoch {best.number}" if len(bests) == 1 else f"{len(bests)} trainings"
    told = [epoch.diagnostics for epoch in epochs if epoch.diagnostics]
    curve, confusion, by_class_size, diagnostics = FILES
    pictures = {
        curve: _learning_curve(title, protocol, epochs, bests, metric, head),
        confusion: _confusion(f"{title}, {reached}", protocol, best, classes),
        by_class_size: _by_class_size(f"{title}, {reached}", protocol, best, class_sizes, classes),
    }
    return pictures | ({diagnostics: loss_diagnostics(title, told, classes)} if told else {})


def _learning_curve(
    title: str,
    protocol: str,
    epochs: Sequence[EpochScore],
    bests: Sequence[EpochScore],
    metric: Metric,
    head: HeadDefinition,
) -> bytes:
    """`bests` is the best epoch of each training."""
    figure, (scores, loss) = subplots(2, 9, 3.4, title)
    x = [epoch.epoch + 1 for epoch in epochs]
    marker = "o" if len(x) < 30 else None
    with styled(scores, f"F1 by epoch ({protocol})", "epoch", "F1", loc="lower right"):
        for name, label, colour in (
            ("minority_f1", "minority classes", MINORITY),
            ("majority_f1", "majority classes", MAJORITY),
            ("macro_f1", "macro", PLAIN),
        ):
            scores.plot(x, [getattr(e.scores, name) for e in epochs], color=colour, label=label, marker=marker, ms=3)
        if metric.key != DEFAULT:
            own = [epoch.scores[metric.key] for epoch in epochs]
            scores.plot(x, own, color=SECOND, label=metric.label, marker=marker, ms=3)
        tops = [best.scores[metric.key] for best in bests]
        where = f"epoch {bests[0].number}" if len(bests) == 1 else f"mean of {len(bests)} trainings"
        label = f"best: {fmean(tops):.4f}, {where}"
        scores.plot([best.number for best in bests], tops, "*", color=BEST, ms=12, label=label, ls="none")
        scores.set_ylim(-0.02, 1.02)
    begins = [after.epoch + 0.5 for before, after in pairwise(epochs) if after.run != before.run]
    for begin in begins:
        for ax in (scores, loss):
            ax.axvline(begin, color=PLAIN, lw=0.8, ls=":")
    with styled(loss, f"training loss, {head.loss}", "epoch", "loss"):
        loss.plot(x, [epoch.loss for epoch in epochs], color=PLAIN, marker=marker, ms=3)
    return png(figure)


def _confusion(title: str, protocol: str, best: EpochScore, classes: Sequence[Class]) -> bytes:
    counts = np.array(best.scores.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    panels = [(counts, "images", "{:.0f}"), (shares, "share of row", "{:.2f}")]
    if not are_named(classes):
        panels = [(shares, "share of row: white is 0, dark blue is 1", "")]
    figure, axes = subplots(len(panels), 5.0 * len(panels), 4.8, f"{title} ({protocol})")
    for ax, (values, name, form) in zip(axes, panels, strict=True):
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        ax.set_title(name, fontsize=9)
        name_axis(ax.xaxis, classes, "predicted class", below=True)
        name_axis(ax.yaxis, classes, "true class", below=False)
        for (row, column), value in np.ndenumerate(values) if form else ():
            if value:
                colour = "white" if shares[row, column] > 0.6 else "black"
                ax.text(column, row, form.format(value), ha="center", va="center", fontsize=6.5, color=colour)
    return png(figure)


def _by_class_size(
    title: str, protocol: str, best: EpochScore, class_sizes: Sequence[int], classes: Sequence[Class]
) -> bytes:
    figure, (ax,) = subplots(1, 6.4, 4.2, f"{title} ({protocol})")
    without = "" if are_named(classes) else f" ({len(classes)} classes, too many for their names)"
    with styled(ax, f"F1 of each class by its size{without}", "training images of the class", "F1"):
        for small, label, colour in ((True, "minority class", MINORITY), (False, "majority class", MAJORITY)):
            mine = [number for number, one in enumerate(classes) if one.small == small]
            sizes, f1 = ([values[number] for number in mine] for values in (class_sizes, best.scores.per_class_f1))
            if mine:
                ax.scatter(sizes, f1, color=colour, label=label, s=28, zorder=3)
        if are_named(classes):
            _label_points(ax, class_sizes, best.scores.per_class_f1, [one.name for one in classes])
        low, high = min(class_sizes), max(class_sizes)
        ax.set_xscale("log")
        ax.set_xlim(low / ROOM, high * ROOM)
        ticks = [tick for tick in log_ticks(low, high) if low / ROOM <= tick <= high * ROOM]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_ylim(-0.03, 1.03)
    return png(figure)


def _label_points(ax: Axes, sizes: Sequence[int], values: Sequence[float], names: Sequence[str]) -> None:
    """Write names beside their points. In a column they go right and left in turn."""
    for column in _columns(sizes):
        rising = sorted(column, key=lambda number: values[number])
        for side, numbers in ((1, rising[::2]), (-1, rising[1::2])):
            for number, height in zip(numbers, spread([values[number] for number in numbers], GAP), strict=True):
                ax.annotate(
                    names[number],
                    (sizes[number], values[number]),
                    xytext=(sizes[number] * 1.25**side, height),
                    fontsize=8,
                    va="center",
                    ha="left" if side > 0 else "right",
                    arrowprops={"arrowstyle": "-", "color": "#999999", "lw": 0.6, "shrinkA": 0, "shrinkB": 2},
                )


def _columns(sizes: Sequence[int]) -> list[list[int]]:
    """Classes of about the same size share a column."""
    columns: list[list[int]] = []
    for number in sorted(range(len(sizes)), key=lambda number: sizes[number]):
        if columns and sizes[number] < 1.6 * sizes[columns[-1][-1]]:
            columns[-1].append(number)
        else:
            columns.append([number])
    return columns


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Heights in [0, 1] near the rising `values`, at least `gap` apart if there is room."""
    heights: list[float] = []
    for value in values:
        heights.append(max(value, heights[-1] + gap) if heights else value)
    top = 1.0
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], top)
        top = heights[index] - gap
    return heights
