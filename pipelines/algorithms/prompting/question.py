"""One question to a vision-language model, what it answered, and what that says about a pair as shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

Picture = bytes | np.ndarray  # an encoded picture (PNG), or uint8[height, width, 3]
Shown = Literal["first", "second", "tie", "unparsable"]


@dataclass(frozen=True)
class Question:
    """A user's turn: `parts` in reading order, an int standing for the picture of that index; one token answers."""

    parts: tuple[str | int, ...]
    pictures: tuple[Picture, ...]
    answers: tuple[str, ...]  # the words that count; each must be one token of the model


class Answer(Protocol):
    """What an engine gives back."""

    @property
    def text(self) -> str:
        """The model's most likely first token, whatever it is."""
        ...

    @property
    def log_probabilities(self) -> Mapping[str, float]:
        """Natural logarithm of the probability of each word that counts."""
        ...


@dataclass(frozen=True)
class Verdict:
    """One juror's word on one pair in one order."""

    raw: str  # the answers' text, untouched
    choice: Shown
    score: float | None  # log-odds that the first shown is better; None where unparsable


DECIMALS = 4  # of a score: what lies below is float noise, which differs between batches


def rounded(score: float) -> float:
    """A score without its float noise, so that equal work gives equal bytes."""
    return round(score, DECIMALS) + 0.0
