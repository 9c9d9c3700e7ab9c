"""What a person sees in the pictures of a trial: names, ticks and titles that can be read."""

from itertools import combinations
from typing import Any

import pytest
from drawn import epochs
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

from affinity_search.search.view.figures import affinity
from affinity_search.search.view.figures import trial as drawing
from affinity_search.search.view.figures.canvas import MINORITY
from affinity_search.studies.data import SOURCES

NAMES = SOURCES["cifar10"].classes
SMALL = (False, True, True) + (False,) * 7
TITLE = "trial 1234: λ 0.4352, σ 478.3, m 10 " * 3


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Draws and returns the figures themselves, by the names of their files."""
    for module in (drawing, affinity):
        monkeypatch.setattr(module, "png", lambda figure: figure)

    def draw(n: int = 5, sizes: tuple[int, ...] = (10, 1000) * 5) -> dict[str, Any]:
        figures: dict[str, Any] = drawing.draw(TITLE, "holdout", epochs(n=n), sizes, NAMES, SMALL)  # type: ignore[assignment]
        for figure in figures.values():
            FigureCanvasAgg(figure).draw()
        return figures

    return draw


def texts(ticks: Any) -> list[str]:
    return [tick.get_text() for tick in ticks]


@pytest.mark.parametrize("n", [1, 2, 5, 60])
def test_epochs_are_whole_numbers(drawn: Any, n: int) -> None:
    for figure in drawn(n).values():
        for ax in figure.axes:
            if ax.get_xlabel() == "epoch":
                assert texts(ax.get_xticklabels())
                assert all(tick == int(tick) for tick in ax.get_xticks())


def test_classes_are_shown_by_name(drawn: Any) -> None:
    figures = drawn()
    for ax in figures["confusion-matrix.png"].axes:
        assert texts(ax.get_xticklabels()) == texts(ax.get_yticklabels()) == list(NAMES)
    assert list(NAMES) in [texts(ax.get_xticklabels()) for ax in figures["loss-diagnostics.png"].axes]
    (ax,) = figures["f1-by-class-size.png"].axes
    assert {text.get_text() for text in ax.texts} == set(NAMES)


def test_small_classes_are_those_that_the_data_say(drawn: Any) -> None:
    figures = drawn()
    for ax in figures["confusion-matrix.png"].axes:
        assert [label.get_color() == MINORITY for label in ax.get_xticklabels()] == list(SMALL)
    small, large = figures["f1-by-class-size.png"].axes[0].collections
    assert (small.get_label(), len(small.get_offsets())) == ("minority class", 2)
    assert (large.get_label(), len(large.get_offsets())) == ("majority class", 8)


def test_no_title_is_wider_than_its_picture(drawn: Any) -> None:
    for figure in drawn().values():
        renderer = figure.canvas.get_renderer()
        for text in (figure._suptitle, *(ax.title for ax in figure.axes)):
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.width
            assert box.y1 <= figure.bbox.height


@pytest.mark.parametrize(
    ("sizes", "spread"),
    [((10, 1000) * 5, 0.0), ((40,) * 10, 0.01), ((39, 150, 44, 141, 40, 147, 41, 149, 40, 150), 0.3)],
)
def test_names_beside_points_do_not_overlap(
    drawn: Any, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], spread: float
) -> None:
    values = tuple(1.0 - spread * number / 10 for number in range(10))
    monkeypatch.setattr("drawn.F1", values)
    figure = drawn(sizes=sizes)["f1-by-class-size.png"]
    renderer = figure.canvas.get_renderer()
    names = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    assert len(names) == 10
    # Without the line that leads to the point.
    boxes = [super(Annotation, text).get_window_extent(renderer) for text in names]
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_sizes_are_written_out(drawn: Any) -> None:
    (ax,) = drawn(sizes=(40, 150) * 5)["f1-by-class-size.png"].axes
    assert texts(ax.get_xticklabels()) == ["20", "50", "100", "200"]
    (ax,) = drawn(sizes=(50, 5000) * 5)["f1-by-class-size.png"].axes
    assert {"100", "1000"} <= set(texts(ax.get_xticklabels()))
    assert not texts(ax.get_xticklabels(minor=True))
