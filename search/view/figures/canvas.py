"""Matplotlib without its global state. A figure is an object and becomes PNG bytes.

The user's settings (MPLBACKEND, matplotlibrc) do not change our pictures.
"""

from __future__ import annotations

import io
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

DPI = 100
CHARACTERS_AN_INCH = 12.5  # of a title in 10 points
# Okabe and Ito's colours: people with any colour vision can tell them apart.
MINORITY, MAJORITY, BEST, PLAIN, SECOND = "#D55E00", "#0072B2", "#009E73", "#333333", "#CC79A7"


def load() -> None:
    """Import matplotlib with its own defaults. If the program uses it already, its settings stay."""
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)  # a notebook's, whose module this process may lack
    try:
        import matplotlib

        matplotlib.rcdefaults()
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def subplots(columns: int, width: float, height: float, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side; sizes in inches."""
    load()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.suptitle(wrapped(title, width), fontsize=10)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def wrapped(title: str, width: float) -> str:
    """The text in lines that fit a figure `width` inches wide: matplotlib cuts longer ones off."""
    return "\n".join(textwrap.fill(line, int(width * CHARACTERS_AN_INCH)) for line in title.splitlines())


def count_axis(axis: Axis) -> None:
    """Ticks at whole numbers only: there is no epoch 2.5."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


@contextmanager
def styled(ax: Axes, title: str, x: str, y: str, **legend: Any) -> Iterator[Axes]:
    """Draw within it. Afterwards it adds labels, a grid and, if it has entries, a legend."""
    yield ax
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    if x == "epoch":
        count_axis(ax.xaxis)
    ax.grid(alpha=0.25)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, **legend)


def message(text: str) -> bytes:
    """A picture of a sentence, where there is nothing to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1), dpi=DPI)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, wrap=True)
    return png(figure)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    load()
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
