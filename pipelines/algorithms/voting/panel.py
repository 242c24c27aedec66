"""Verdicts of a panel by counting: plurality of its jurors, or unanimity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Int8
from pydantic import Field

from infra.config import Config
from pipelines.algorithms.voting.ballots import NOTHING, TIE


@dataclass(frozen=True)
class Verdicts:
    """What the panel says of each pair."""

    choice: Int8[np.ndarray, " pairs"]
    """Code of a, b or tie; never nothing: a pair nobody judged is a tie with agreement 0."""
    agreement: Float[np.ndarray, " pairs"]
    """How sure the panel is, in [0, 1]: share of readable ballots behind the choice, or its posterior probability."""
    counts: Int[np.ndarray, "pairs 4"]
    """Ballots for a, b, tie and nothing."""


class Majority(Config):
    """The answer most jurors gave; equal first places are a tie."""

    kind: Literal["majority"] = "majority"

    def verdicts(self, ballots: Int8[np.ndarray, "pairs jurors"]) -> Verdicts:
        """The plurality of each pair."""
        counts = count_ballots(ballots)
        return _verdicts(plurality(counts), counts=counts)


class Unanimous(Config):
    """The answer every juror gave who gave any; otherwise a tie."""

    kind: Literal["unanimous"] = "unanimous"
    minimum: int = Field(1, ge=1)
    """Readable ballots a pair needs; with fewer it is a tie."""

    def verdicts(self, ballots: Int8[np.ndarray, "pairs jurors"]) -> Verdicts:
        """a or b where nobody says otherwise."""
        counts = count_ballots(ballots)
        readable = counts[:, :NOTHING].sum(1)
        united = (counts[:, :NOTHING].max(1) == readable) & (readable >= self.minimum)
        return _verdicts(np.where(united, plurality(counts), TIE).astype(np.int8), counts=counts)


def count_ballots(ballots: Int8[np.ndarray, "pairs jurors"]) -> Int[np.ndarray, "pairs 4"]:
    """Ballots for a, b, tie and nothing on each pair."""
    return np.stack([(ballots == code).sum(1) for code in range(4)], axis=1)


def plurality(counts: Int[np.ndarray, "pairs 4"]) -> Int8[np.ndarray, " pairs"]:
    """The readable answer with the most ballots; tie where two share the first place or there is none."""
    readable = counts[:, :NOTHING]
    top = readable.max(1, keepdims=True)
    shared = (readable == top).sum(1) > 1
    return np.where(shared, TIE, readable.argmax(1)).astype(np.int8)


def _verdicts(choice: np.ndarray, *, counts: np.ndarray) -> Verdicts:
    readable = counts[:, :NOTHING].sum(1)
    behind = counts[np.arange(len(choice)), choice]
    return Verdicts(choice=choice, agreement=behind / np.maximum(readable, 1), counts=counts)
