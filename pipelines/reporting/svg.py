"""SVG by hand: escaped elements, scales and ticks. Colours come from the page's classes, so figures follow light and dark.

Every number is written with two decimals and nothing is drawn from a clock or a random source: the same rows give the same
bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from pipelines.reporting.text import printable


def number(value: float) -> str:
    """A coordinate."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def element(tag: str, *children: Markup | str, **attributes: str | float) -> Markup:
    """One element; text and attribute values are escaped. `class_` is `class`, `stroke_width` is `stroke-width`."""
    written = ""
    for name, value in attributes.items():
        text = value if isinstance(value, str) else number(value)
        written += f' {name.rstrip("_").replace("_", "-")}="{escape(printable(text))}"'
    inner = "".join(str(child if isinstance(child, Markup) else escape(printable(child))) for child in children)
    return Markup(f"<{tag}{written}>{inner}</{tag}>")  # every part is escaped above


def group(children: Iterable[Markup], **attributes: str | float) -> Markup:
    """Elements drawn together."""
    return element("g", *children, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line of a class."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def text(x: float, y: float, words: str, *, anchor: str = "start", kind: str = "tick") -> Markup:
    """Words at a place; anchor is start, middle or end."""
    return element("text", words, x=x, y=y, text_anchor=anchor, class_=kind)


def figure(width: float, height: float, children: Iterable[Markup], *, title: str, kind: str = "chart") -> Markup:
    """A drawing with its alternative text."""
    drawn = [element("title", title), *children]
    size = {"viewBox": f"0 0 {number(width)} {number(height)}", "width": width, "height": height}
    return element("svg", *drawn, **size, role="img", aria_label=title, class_=kind)


def shorten(words: str, most: int) -> str:
    """At most so many characters, the rest as an ellipsis."""
    return words if len(words) <= most else words[: most - 1] + "…"


@dataclass(frozen=True)
class Scale:
    """A linear map from [low, high] in the data to [start, end] on the page."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values within the scale."""
        raw = (self.high - self.low) / max(about, 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]


def tick_label(value: float) -> str:
    """Four significant digits at most."""
    return f"{value:.4g}" if abs(value) > 1e-12 else "0"


def spanning(values: Sequence[float], start: float, end: float, *, margin: float = 0.06) -> Scale:
    """A scale over the finite values, with a margin; [0, 1] where there are none."""
    finite = [v for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if high - low < 1e-12 * max(1.0, abs(high)):
        room = abs(high) * 0.1 or 0.5
        low, high = low - room, high + room
    room = (high - low) * margin
    return Scale(low - room, high + room, start, end)
