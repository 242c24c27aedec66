"""Figures of the report: intervals on one axis, curves over steps, and a histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipelines.reporting.svg import (
    Scale,
    element,
    figure,
    group,
    line,
    number,
    shorten,
    spanning,
    text,
    tick_label,
)

WIDTH = 640.0
POINTS = 240  # at most so many points a curve: longer ones are means of equal bins


@dataclass(frozen=True)
class Estimate:
    """A named value with its interval."""

    name: str
    value: float
    low: float
    high: float

    @property
    def drawable(self) -> bool:
        """Whether it has a place on an axis."""
        return all(math.isfinite(v) for v in (self.value, self.low, self.high))


@dataclass(frozen=True)
class Series:
    """Values over steps; `kind` is the class of its colour: one or two."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    kind: str = "one"


def forest(estimates: Sequence[Estimate], *, title: str, axis: str, reference: float | None = None) -> Markup:
    """One line an estimate: a dot, and a bar from low to high; a dashed line where nothing differs."""
    drawable = [e for e in estimates if e.drawable]
    left, right, row, top = 190.0, 20.0, 26.0, 10.0
    bottom = top + row * max(len(estimates), 1)
    ends = [v for e in drawable for v in (e.low, e.high, e.value)] + ([] if reference is None else [reference])
    x = spanning(ends, left, WIDTH - right)
    parts = _vertical_grid(x, top, bottom)
    if reference is not None:
        parts.append(line(x(reference), top, x(reference), bottom, "reference"))
    for place, estimate in enumerate(estimates):
        y = top + row * (place + 0.5)
        parts.append(text(left - 12, y + 4, shorten(estimate.name, 26), anchor="end", kind="label"))
        if not estimate.drawable:
            parts.append(text(left + 6, y + 4, "not measured"))
            continue
        below = reference is not None and estimate.low <= reference
        kind = "two" if below else "one"
        parts.append(line(x(estimate.low), y, x(estimate.high), y, f"bar {kind}"))
        parts.append(element("circle", cx=x(estimate.value), cy=y, r=4.5, class_=f"dot {kind}"))
    parts.append(text((left + WIDTH - right) / 2, bottom + 36, axis, anchor="middle", kind="label"))
    return figure(WIDTH, bottom + 44, parts, title=title)


def _vertical_grid(x: Scale, top: float, bottom: float) -> list[Markup]:
    parts = []
    for tick in x.ticks(6):
        parts.append(line(x(tick), top, x(tick), bottom, "grid"))
        parts.append(text(x(tick), bottom + 17, tick_label(tick), anchor="middle"))
    return parts


def thinned(curve: Series) -> Series:
    """At most POINTS finite points: means of equal bins."""
    kept = [(s, v) for s, v in zip(curve.steps, curve.values, strict=True) if math.isfinite(v)]
    size = max(1, math.ceil(len(kept) / POINTS))
    bins = [kept[k : k + size] for k in range(0, len(kept), size)]
    steps = [sum(s for s, _ in b) / len(b) for b in bins]
    values = [sum(v for _, v in b) / len(b) for b in bins]
    return Series(curve.name, steps, values, curve.kind)


def smoothed(curve: Series) -> Series:
    """Centred running mean over a tenth of the points."""
    reach = max(1, len(curve.values) // 20)
    means = []
    for place in range(len(curve.values)):
        near = curve.values[max(0, place - reach) : place + reach + 1]
        means.append(sum(near) / len(near))
    return Series(curve.name, curve.steps, means, curve.kind)


def curves(many: Sequence[Series], *, title: str, axis: str = "step", reference: float | None = None) -> Markup:
    """Values over steps, faint, and their running mean, strong. Names are written where there are two or more."""
    width, height = 330.0, 210.0
    raw = [thinned(curve) for curve in many]
    values = [v for curve in raw for v in curve.values] + ([] if reference is None else [reference])
    x = spanning([s for curve in raw for s in curve.steps], 56.0, width - 12, margin=0.02)
    y = spanning(values, height - 40, 26.0)
    parts = _horizontal_grid(y, 56.0, width - 12)
    parts += [text(x(tick), height - 22, tick_label(tick), anchor="middle") for tick in x.ticks(4)]
    parts.append(text((56 + width) / 2, height - 5, axis, anchor="middle"))
    if reference is not None:
        parts.append(line(56.0, y(reference), width - 12, y(reference), "reference"))
    for place, curve in enumerate(raw):
        parts.append(_path(curve, x, y, f"curve faint {curve.kind}"))
        parts.append(_path(smoothed(curve), x, y, f"curve {curve.kind}"))
        if len(raw) > 1:
            parts.append(text(width - 14, 20.0 + 14 * place, curve.name, anchor="end", kind=f"legend {curve.kind}"))
    if not any(curve.values for curve in raw):
        parts.append(text(width / 2, height / 2, "no finite values", anchor="middle", kind="label"))
    parts.append(text(8, 14, title, kind="label"))
    return figure(width, height, parts, title=_described(title, raw))


def _described(title: str, many: Sequence[Series]) -> str:
    """Alternative text: where each curve starts and ends."""
    ends = []
    for curve in many:
        if curve.values:
            mean = smoothed(curve).values
            ends.append(f"{curve.name} from {tick_label(mean[0])} to {tick_label(mean[-1])}")
    return f"{title}: {'; '.join(ends) or 'no values'}"


def _horizontal_grid(y: Scale, left: float, right: float) -> list[Markup]:
    parts = []
    for tick in y.ticks(4):
        parts.append(line(left, y(tick), right, y(tick), "grid"))
        parts.append(text(left - 6, y(tick) + 4, tick_label(tick), anchor="end"))
    return parts


def _path(curve: Series, x: Scale, y: Scale, kind: str) -> Markup:
    points = [f"{number(x(s))} {number(y(v))}" for s, v in zip(curve.steps, curve.values, strict=True)]
    if len(points) == 1:
        return element("circle", cx=x(curve.steps[0]), cy=y(curve.values[0]), r=3.0, class_=kind.replace("curve", "dot"))
    return element("path", d=f"M{' L'.join(points)}", class_=kind) if points else group([])


def by_noise(estimates: Sequence[Estimate], places: Sequence[float], *, title: str, reference: float) -> Markup:
    """Estimates with vertical intervals over the noise level t in [0, 1]."""
    height = 260.0
    x = Scale(-0.03, 1.03, 56.0, WIDTH - 12)
    drawable = [(t, e) for t, e in zip(places, estimates, strict=True) if e.drawable]
    y = spanning([v for _, e in drawable for v in (e.low, e.high)] + [reference], height - 44, 12.0)
    parts = _horizontal_grid(y, 56.0, WIDTH - 12)
    parts.append(line(56.0, y(reference), WIDTH - 12, y(reference), "reference"))
    parts += [text(x(k / 5), height - 26, tick_label(k / 5), anchor="middle") for k in range(6)]
    parts.append(text((56 + WIDTH) / 2, height - 6, "noise level t (1 is noise)", anchor="middle", kind="label"))
    for t, estimate in drawable:
        kind = "two" if estimate.low <= reference else "one"
        parts.append(line(x(t), y(estimate.low), x(t), y(estimate.high), f"bar {kind}"))
        parts.append(element("circle", cx=x(t), cy=y(estimate.value), r=4.5, class_=f"dot {kind}"))
    return figure(WIDTH, height, parts, title=title)


def histogram(values: Sequence[float], *, title: str, axis: str, bins: int = 30) -> Markup:
    """How many values lie where."""
    height = 200.0
    finite = [v for v in values if math.isfinite(v)]
    x = spanning(finite, 56.0, WIDTH - 12, margin=0.0)
    counts = [0] * bins
    for value in finite:
        counts[min(int((value - x.low) / (x.high - x.low) * bins), bins - 1)] += 1
    y = Scale(0.0, max([*counts, 1]) * 1.05, height - 44, 12.0)
    parts = _horizontal_grid(y, 56.0, WIDTH - 12)
    step = (x.end - x.start) / bins
    for place, size in enumerate(counts):
        top = y(size)
        parts.append(
            element("rect", x=x.start + place * step + 1, y=top, width=step - 2, height=y(0.0) - top, class_="fill one")
        )
    parts += [text(x(tick), height - 26, tick_label(tick), anchor="middle") for tick in x.ticks(6)]
    parts.append(text((56 + WIDTH) / 2, height - 6, axis, anchor="middle", kind="label"))
    return figure(WIDTH, height, parts, title=title)
