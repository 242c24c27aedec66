"""An estimate with the interval it lies in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A point estimate, its confidence interval, and on how many observations it stands."""

    estimate: float
    low: float
    high: float
    n: int
