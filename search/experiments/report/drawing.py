"""Vector drawings that take their colours from the page, so that one drawing serves light, dark and print.

A shape's classes name its colour: `s0` to `s6` and `base` are contestants, `better`, `worse` and `none` verdicts, and
`ink`, `muted` and `grid` the rest. The page's style sheet has them. ElementTree escapes all text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from affinity_search.search.view.figures.ticks import log_ticks

TEXT_PX = 13.0
WIDE = 600  # a drawing wider than this would be too small on a phone: it scrolls there
_WIDE, _NARROW = set("mwMW@%—…"), set("iljtfrI.,:;|!'()[] -")
# Control characters but tab and line break, surrogates, what overrides the direction, and no characters.
_UNPRINTABLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\u202a-\\u202e\\u2066-\\u2069\\ufffe\\uffff]"
)
SERIES = 7  # colours beside that of the baseline
SHAPES = ("circle", "square", "triangle", "diamond", "down", "pentagon", "star")


def text_width(text: str, size: float = TEXT_PX) -> float:
    """About as wide as a browser makes it, rather too wide: there is no font to measure here."""
    return size * sum(0.9 if char in _WIDE else 0.36 if char in _NARROW else 0.63 for char in text)


def shortened(text: str, width: float, size: float = TEXT_PX) -> str:
    """As much of its beginning and its end as fits: names often differ in their last characters."""
    if text_width(text, size) <= width:
        return text
    kept = len(text)
    while kept and text_width(text[: kept - kept // 2] + "…" + text[len(text) - kept // 2 :], size) > width:
        kept -= 1
    return text[: kept - kept // 2] + "…" + text[len(text) - kept // 2 :]


def printable(text: str) -> str:
    """Without the control characters that no XML may have, and without those that turn the direction of reading."""
    return _UNPRINTABLE.sub("�", text)


@dataclass(frozen=True)
class Axis:
    """From values to pixels."""

    low: float
    high: float
    start: float  # the pixel of `low`
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * self._share(value)

    def _share(self, value: float) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def clipped(self, value: float) -> float:
        return self(min(max(value, self.low), self.high))

    def ticks(self, most: int = 7) -> list[float]:
        """Round values within the axis."""
        if self.log:
            found = log_ticks(self.low, self.high)
        else:
            found = [
                float(each) for each in MaxNLocator(nbins=most, steps=[1, 2, 5, 10]).tick_values(self.low, self.high)
            ]
        slack = 1e-9 * abs(self.high - self.low)
        return [each for each in found if self.low - slack <= each <= self.high + slack]


def padded(values: Sequence[float], share: float = 0.06, least: float = 1e-6) -> tuple[float, float]:
    """The values' range, with some room on both sides."""
    low, high = min(values), max(values)
    room = max(share * (high - low), least)
    return low - room, high + room


def padded_log(values: Sequence[float], factor: float = 1.25) -> tuple[float, float]:
    """For a log axis; at least so wide that a round number lies in it."""
    low, high = min(values) / factor, max(values) * factor
    wider = max(1.0, math.sqrt(10 / (high / low)))
    return low / wider, high * wider


class Drawing:
    """A picture of `width` × `height`, which the page scales. `title` and `about` are read aloud."""

    def __init__(self, key: str, width: float, height: float, title: str, about: str) -> None:
        self.key = key
        self.width, self.height = width, height
        attributes = {
            "viewBox": f"0 0 {width:.0f} {height:.0f}",
            "role": "img",
            "aria-labelledby": f"{key}-title {key}-about",
            "class": "wide" if width > WIDE else "narrow",
            "style": f"max-width:{width:.0f}px",
        }
        self.root = ElementTree.Element("svg", attributes)
        ElementTree.SubElement(self.root, "title", {"id": f"{key}-title"}).text = printable(title)
        ElementTree.SubElement(self.root, "desc", {"id": f"{key}-about"}).text = printable(about)

    @classmethod
    def small(cls, width: float, height: float) -> Self:
        """One that says nothing: its words stand beside it."""
        made = cls("", width, height, "", "")
        made.root = ElementTree.Element(
            "svg",
            {
                "viewBox": f"0 0 {width:.0f} {height:.0f}",
                "width": f"{width:.0f}",
                "height": f"{height:.0f}",
                "aria-hidden": "true",
            },
        )
        return made

    def add(self, tag: str, look: str = "", hint: str = "", **attributes: float | str) -> ElementTree.Element:
        """`look` are its classes, `hint` is shown where the pointer rests."""
        plain = {key.replace("_", "-"): _plain(value) for key, value in attributes.items()}
        made = ElementTree.SubElement(self.root, tag, ({"class": look} if look else {}) | plain)
        if hint:
            ElementTree.SubElement(made, "title").text = printable(hint)
        return made

    def line(self, x1: float, y1: float, x2: float, y2: float, look: str, width: float = 1.0) -> None:
        self.add("line", look, x1=x1, y1=y1, x2=x2, y2=y2, stroke_width=width)

    def text(self, x: float, y: float, text: str, look: str = "ink", anchor: str = "start", *, turn: float = 0) -> None:
        """`y` is the middle of the line; `turn` is in degrees, clockwise."""
        made = self.add("text", look, x=x, y=y + TEXT_PX * 0.35, text_anchor=anchor)
        made.text = printable(text)
        if turn:
            made.set("transform", f"rotate({turn:g} {x:.1f} {y:.1f})")

    def path(self, points: Sequence[tuple[float, float]], look: str, width: float = 2.0, dash: str = "") -> None:
        steps = " ".join(f"{'M' if at == 0 else 'L'}{x:.1f} {y:.1f}" for at, (x, y) in enumerate(points))
        more = {"stroke_dasharray": dash} if dash else {}
        self.add("path", f"{look} open", d=steps, stroke_width=width, **more)

    def marker(self, shape: str, x: float, y: float, r: float, look: str, hint: str = "") -> None:
        self.add("path", f"{look} mark", hint, d=outline(shape, x, y, r))

    def markup(self) -> Markup:
        return Markup(ElementTree.tostring(self.root, encoding="unicode"))


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def outline(shape: str, x: float, y: float, r: float) -> str:
    """A closed path around (x, y); shapes of one `r` look equally large."""
    if shape == "circle":
        return f"M{x - r:.1f} {y:.1f}a{r:.1f} {r:.1f} 0 1 0 {2 * r:.1f} 0a{r:.1f} {r:.1f} 0 1 0 {-2 * r:.1f} 0Z"
    corners, turn, size = {
        "square": (4, 45, 1.2),
        "diamond": (4, 0, 1.3),
        "triangle": (3, -90, 1.35),
        "down": (3, 90, 1.35),
        "pentagon": (5, -90, 1.2),
        "star": (10, -90, 1.5),
    }[shape]
    ends = []
    for at in range(corners):
        angle = math.radians(turn + 360 * at / corners)
        far = r * size * (0.45 if shape == "star" and at % 2 else 1.0)
        ends.append(f"{x + far * math.cos(angle):.1f} {y + far * math.sin(angle):.1f}")
    return f"M{'L'.join(ends)}Z"
