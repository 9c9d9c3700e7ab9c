"""What the affinity loss does with its centres and its margin, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from affinity_search.search.view.figures.canvas import MAJORITY, MINORITY, SECOND, count_axis, png, styled, subplots
from affinity_search.search.view.figures.classes import Class, name_axis

if TYPE_CHECKING:
    from affinity_search.search.training.heads.affinity_diagnostics import Diagnostics


def loss_diagnostics(title: str, told: Sequence[Diagnostics], classes: Sequence[Class]) -> bytes:
    last = told[-1]
    figure, (terms, shares, dead, distances) = subplots(4, 14, 3.6, title)
    x = range(1, len(told) + 1)
    marker = "o" if len(x) < 30 else None

    def lines(ax: Any, *named: tuple[str, str, str]) -> None:
        for name, label, colour in named:
            ax.plot(x, [getattr(one, name) for one in told], color=colour, label=label, marker=marker, ms=3)

    with styled(terms, "terms of the loss", "epoch", "", loc="upper right") as ax:
        lines(ax, ("hinge", "hinge, eq. (4)", MAJORITY), ("diversity", "diversity, eq. (6)", SECOND))
        ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
    with styled(shares, "inside the margin, dead centres", "epoch", "share") as ax:
        lines(ax, ("inside", "images inside the margin", MAJORITY), ("dead_share", "dead centres", MINORITY))
        ax.set_ylim(-0.02, 1.02)
    with styled(dead, f"dead centres of {last.n_centers} a class, last epoch", "class", "dead centres") as ax:
        ax.bar(range(len(last.dead)), last.dead, color=[one.colour for one in classes])
        ax.set_ylim(0, last.n_centers)
        count_axis(ax.yaxis)
    name_axis(dead.xaxis, classes, "class", below=True)
    with styled(distances, "distances between centres", "epoch", "distance") as ax:
        within = [("within", "of one class, mean", MINORITY)] if last.within is not None else []
        lines(ax, ("between", "of different classes, mean", MAJORITY), ("closest", "the closest two", SECOND), *within)
        ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
    return png(figure)
