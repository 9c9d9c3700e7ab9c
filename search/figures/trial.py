"""The pictures of one trial, from its epochs: learning curve, confusion matrix, F1 by class size, loss diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from search.figures.canvas import BEST, MAJORITY, MINORITY, PLAIN, SECOND, png, styled, subplots
from search.training.results import best_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from search.training.diagnostics import Diagnostics
    from search.training.results import EpochScore

# The softmax head has no loss diagnostics.
FILES = ("learning-curve.png", "confusion-matrix.png", "f1-by-class-size.png", "loss-diagnostics.png")


def draw(title: str, protocol: str, epochs: Sequence[EpochScore], class_sizes: Sequence[int]) -> dict[str, bytes]:
    """PNG files by name: `epochs` in order, at least one; `class_sizes` are training images of each class.

    The softmax head has no loss diagnostics.
    """
    best = best_epoch(epochs)
    told = [epoch.diagnostics for epoch in epochs if epoch.diagnostics]
    curve, confusion, by_class_size, diagnostics = FILES
    pictures = {
        curve: _learning_curve(title, protocol, epochs, best),
        confusion: _confusion(title, protocol, best),
        by_class_size: _by_class_size(title, protocol, best, class_sizes),
    }
    return pictures | ({diagnostics: _loss_diagnostics(title, told)} if told else {})


def _learning_curve(title: str, protocol: str, epochs: Sequence[EpochScore], best: EpochScore) -> bytes:
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
        scores.plot(
            best.epoch + 1,
            best.scores.macro_f1,
            "*",
            color=BEST,
            ms=12,
            label=f"best: {best.scores.macro_f1:.4f}, epoch {best.epoch + 1}",
        )
        scores.set_ylim(-0.02, 1.02)
    # Only the affinity head has diagnostics.
    what = "training loss, eq. (7)" if epochs[0].diagnostics else "training loss, cross-entropy"
    with styled(loss, what, "epoch", "loss"):
        loss.plot(x, [epoch.loss for epoch in epochs], color=PLAIN, marker=marker, ms=3)
    return png(figure)


def _confusion(title: str, protocol: str, best: EpochScore) -> bytes:
    counts = np.array(best.scores.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = subplots(2, 10, 4.8, f"{title}, epoch {best.epoch + 1} ({protocol})")
    for ax, values, name, form in ((axes[0], counts, "images", "{:.0f}"), (axes[1], shares, "share of row", "{:.2f}")):
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("predicted class")
        ax.set_ylabel("true class")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks(range(len(counts)))
        _tint_minority(ax)
        for (row, column), value in np.ndenumerate(values):
            if value:
                colour = "white" if shares[row, column] > 0.6 else "black"
                ax.text(column, row, form.format(value), ha="center", va="center", fontsize=6.5, color=colour)
    return png(figure)


def _tint_minority(ax: Axes) -> None:
    for number, label in enumerate(ax.get_yticklabels()):
        label.set_color(MAJORITY if number % 2 else MINORITY)


def _by_class_size(title: str, protocol: str, best: EpochScore, class_sizes: Sequence[int]) -> bytes:
    figure, (ax,) = subplots(1, 5.6, 3.6, f"{title}, epoch {best.epoch + 1} ({protocol})")
    with styled(ax, "F1 of each class by its size", "training images of the class", "F1", loc="lower right"):
        for first, label, colour in ((0, "minority class", MINORITY), (1, "majority class", MAJORITY)):
            f1 = best.scores.per_class_f1[first::2]
            ax.scatter(class_sizes[first::2], f1, color=colour, label=label, s=28, zorder=3)
            for number, (size, value) in enumerate(zip(class_sizes[first::2], f1, strict=True)):
                # Classes of one size stand in one column: their numbers to the right and left in turn.
                ax.annotate(
                    str(2 * number + first),
                    (size, value),
                    xytext=(6 if number % 2 else -6, 0),
                    textcoords="offset points",
                    fontsize=8,
                    va="center",
                    ha="left" if number % 2 else "right",
                )
        ax.set_xscale("log")
        ax.margins(x=0.15)
        ax.set_ylim(-0.03, 1.03)
    return png(figure)


def _loss_diagnostics(title: str, told: Sequence[Diagnostics]) -> bytes:
    last = told[-1]
    figure, (terms, shares, dead, distances) = subplots(4, 14, 3.6, title)
    x = range(1, len(told) + 1)

    def lines(ax: Any, *named: tuple[str, str, str]) -> None:
        for name, label, colour in named:
            ax.plot(x, [getattr(one, name) for one in told], color=colour, label=label)

    with styled(terms, "terms of the loss", "epoch", "", loc="upper right") as ax:
        lines(ax, ("hinge", "hinge, eq. (4)", MAJORITY), ("diversity", "diversity, eq. (6)", SECOND))
        ax.set_ylim(bottom=0)
    with styled(shares, "inside the margin, dead centres", "epoch", "share") as ax:
        lines(ax, ("inside", "images inside the margin", MAJORITY), ("dead_share", "dead centres", MINORITY))
        ax.set_ylim(-0.02, 1.02)
    with styled(dead, f"dead centres of {last.n_centers} a class, last epoch", "class", "dead centres") as ax:
        colours = [MAJORITY if number % 2 else MINORITY for number in range(len(last.dead))]
        ax.bar(range(len(last.dead)), last.dead, color=colours)
        ax.set_xticks(range(len(last.dead)))
        ax.set_ylim(0, last.n_centers)
    with styled(distances, "distances between centres", "epoch", "distance") as ax:
        within = [("within", "of one class, mean", MINORITY)] if last.within is not None else []
        lines(ax, ("between", "of different classes, mean", MAJORITY), ("closest", "the closest two", SECOND), *within)
        ax.set_ylim(bottom=0)
    return png(figure)
