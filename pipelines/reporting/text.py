"""Numbers and foreign text as a reader sees them."""

from __future__ import annotations

import math

CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160), *range(55296, 57344)], "�")
DIRECTIONS = dict.fromkeys([*range(8234, 8239), *range(8294, 8298)], "�")
MISSING = "n/a"


def printable(words: str) -> str:
    """The text with control characters, and those that turn the reading direction, made visible."""
    return words.translate(CONTROLS | DIRECTIONS)


def fixed(value: float | None, digits: int = 3) -> str:
    """0.123; n/a where there is no number."""
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else MISSING


def signed(value: float | None, digits: int = 3) -> str:
    """+0.123, with a true minus sign."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:+.{digits}f}".replace("-", "\u2212")


def percent(value: float | None) -> str:
    """12.3 %."""
    return f"{value * 100:.1f} %" if value is not None and math.isfinite(value) else MISSING


def count(value: int | None) -> str:
    """The number with separators: 1,234."""
    return f"{value:,}" if value is not None else MISSING


def seconds(value: float | None) -> str:
    """12.3 s, 3 min 20 s."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.1f} s" if value < 100 else f"{int(value) // 60} min {int(value) % 60:02d} s"


def plural(number: int, one: str, many: str = "") -> str:
    """1 row, 2 rows."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
