"""The row of the benchmark over small rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SquareRow:
    """A number and its square."""

    id: str
    value: int
    square: int
