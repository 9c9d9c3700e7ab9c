"""Scatter plots of features and centres, one for each epoch, and an animation of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.view.figures.canvas import PLAIN, png, subplots
from affinity_search.search.view.figures.classes import MOST_NAMED
from affinity_search.studies.metrics import DEFAULT, METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from affinity_search.search.training.networks.features import Features

MOST_IMAGES = 3000
FRAME_MS, LAST_FRAME_MS = 500, 2500
# Ten colours that differ in lightness and hue; a minority class is a triangle, a majority class a dot. With more
# classes they come again.
COLOURS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"),
    *("#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
)


def in_two_dimensions(epochs: Sequence[Features]) -> tuple[list[Features], str]:
    """The features with h = 2, and how they got there: unchanged, or projected on two principal components of the last
    epoch.
    """
    width = epochs[-1].values.shape[1]
    if width == 2:
        return list(epochs), "features, h = 2"
    from sklearn.decomposition import PCA

    plane = PCA(2, random_state=0).fit(epochs[-1].values)
    share = float(plane.explained_variance_ratio_.sum())

    def projected(points: NDArray[np.float32]) -> NDArray[np.float32]:
        flat: NDArray[np.float32] = plane.transform(points.reshape(-1, width)).astype("float32")
        return flat.reshape(*points.shape[:-1], 2)

    flat = [
        replace(one, values=projected(one.values), centers=None if one.centers is None else projected(one.centers))
        for one in epochs
    ]
    return flat, f"h = {width}, two principal components ({share:.0%} of the last epoch's variance)"


def draw(
    epochs: Sequence[Features],
    title: str,
    scores: Sequence[float],
    names: Sequence[str],
    minority: Sequence[bool] = (),
    label: str = METRICS[DEFAULT].label,
) -> list[bytes]:
    """A PNG for each epoch, each with its own axes, because features grow. `scores` has one score for each epoch;
    `label` names it.

    `names` are the names of the classes. `minority` says which of them are small (without it: none).
    """
    flat, how = in_two_dimensions(epochs)
    if len(names) > MOST_NAMED:
        how += f"; {len(names)} classes share ten colours"
    chosen = _even_choice(flat[0].labels)
    return [
        _scatter(one, chosen, f"{title}\nepoch {number}, {label} {score:.4f}; {how}", names, minority)
        for number, (one, score) in enumerate(zip(flat, scores, strict=True), start=1)
    ]


def _even_choice(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """At most so many images of each class: a hundred thousand dots would cover each other."""
    most = MOST_IMAGES // (int(labels.max()) + 1)
    return np.concatenate([np.flatnonzero(labels == label)[:most] for label in np.unique(labels)])


def _scatter(
    one: Features, chosen: NDArray[np.int64], title: str, names: Sequence[str], minority: Sequence[bool]
) -> bytes:
    figure, (ax,) = subplots(1, 6.4, 6.0, title)
    values, labels = one.values[chosen], one.labels[chosen]
    for label in np.unique(labels):
        mine = values[labels == label]
        small = bool(minority) and minority[label]
        ax.scatter(
            mine[:, 0],
            mine[:, 1],
            s=18 if small else 9,
            marker="^" if small else "o",
            color=COLOURS[label % len(COLOURS)],
            label=f"{names[label]}{' (minority)' if small else ''}",
            alpha=0.7,
            linewidths=0,
            zorder=2 + small,
        )
        if one.centers is not None:
            centers = one.centers[label]
            ax.scatter(
                centers[:, 0],
                centers[:, 1],
                s=110 if len(names) <= MOST_NAMED else 30,
                marker="*",
                color=COLOURS[label % len(COLOURS)],
                edgecolors="black",
                zorder=5,
            )
    # Centres far from all images must not shrink the picture to a dot.
    low, high = np.percentile(values, [0.5, 99.5], axis=0)
    margin = 0.25 * (high - low) + 1e-6
    ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
    ax.set_ylim(low[1] - margin[1], high[1] + margin[1])
    _legend(ax, len(names) <= MOST_NAMED)
    ax.grid(alpha=0.2)
    return png(figure)


def _legend(ax: Axes, named: bool) -> None:
    """Of the classes, or of what their marks mean where there are many."""
    handles, labels = ax.get_legend_handles_labels()
    if not named:
        handles, labels = [ax.scatter([], [], marker=mark, color=PLAIN) for mark in "^o"], ["minority", "majority"]
    ax.legend(
        handles,
        labels,
        fontsize=7,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        title="class (★ centre)",
        title_fontsize=7,
    )


def animate(frames: Sequence[bytes], path: Path) -> None:
    """Write a GIF that stays on its last frame for a while."""
    from PIL import Image

    first, *others = [Image.open(io.BytesIO(frame)).convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames]
    durations = [FRAME_MS] * len(others) + [LAST_FRAME_MS]
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0)
