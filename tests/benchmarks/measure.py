"""One measured figure beside the bar it is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """A ratio or figure of one run."""

    name: str
    value: float
    bar: str  # "<= 1.3", ">= 0.8"
    detail: dict[str, Any]

    @property
    def holds(self) -> bool:
        """Whether the bar is met."""
        sign, limit = self.bar.split()
        return self.value <= float(limit) if sign == "<=" else self.value >= float(limit)

    def line(self) -> str:
        """For the table `make bench` prints."""
        detail = "  ".join(f"{name}={value}" for name, value in self.detail.items())
        return f"{'ok ' if self.holds else 'MISS'}  {self.name:<58} {self.value:8.3f}  (bar {self.bar})  {detail}"
