"""What a juror says of a pair as shown, in one dimension."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from actors.serving.engine import Answer

Choice = Literal["first", "second", "tie", "unparsable"]
OVERALL = "overall"
"""The dimension of a juror that is asked one question about everything."""
DECIMALS = 4
"""Decimals kept of a score; what lies below is noise of the arithmetic."""


@dataclass(frozen=True)
class Opinion:
    """One juror's answer about one case in one dimension, in terms of position: the juror knows no more."""

    dimension: str
    choice: Choice | None
    """Which is better; None where a single picture was graded."""
    score: float | None
    """Log-odds that the first is better, or a difference of expected grades; of a single picture its log-odds or expected
    grade. None where unparsable."""
    grade: int | None
    """The most likely grade of a single picture; None where there is none."""
    raw: str
    """The answers' text, untouched."""


def unparsable(raw: str, *, dimension: str = OVERALL) -> Opinion:
    """An answer that says nothing."""
    return Opinion(dimension, "unparsable", None, None, raw)


def rounded(score: float) -> float:
    """A score without the noise of the arithmetic; never -0."""
    return round(score, DECIMALS) + 0.0


def decided(score: float, *, tie_within: float) -> Choice:
    """first, second or tie by the sign of a score, a tie within the threshold; unparsable for nan."""
    if math.isnan(score):
        return "unparsable"
    return "tie" if abs(score) <= tie_within else "first" if score > 0 else "second"


def has_nan(answers: Iterable[Answer]) -> bool:
    """Whether a model broke down: some log-probability is not a number, so its most likely token means nothing."""
    return any(math.isnan(value) for answer in answers for value in answer.log_probabilities.values())
