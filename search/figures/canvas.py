"""Matplotlib without its global state: a figure is an object, and becomes PNG bytes.

Nothing of the user's changes our pictures: no backend (MPLBACKEND), no matplotlibrc.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
# Okabe and Ito's colours, which people with any colour vision can tell apart.
MINORITY, MAJORITY, BEST, PLAIN, SECOND = "#D55E00", "#0072B2", "#009E73", "#333333", "#CC79A7"


def load() -> None:
    """Import matplotlib with its own defaults; in a program that uses it already, that program's settings stay."""
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
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


@contextmanager
def styled(ax: Axes, title: str, x: str, y: str, **legend: Any) -> Iterator[Axes]:
    """Draw within it; labels, grid and a legend, if there is anything to put into it, come afterwards."""
    yield ax
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
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
