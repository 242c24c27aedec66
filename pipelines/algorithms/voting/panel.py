"""Verdicts of a panel by counting: plurality of its jurors, or unanimity.

A pair with fewer readable ballots than the minimum is a tie with agreement 0: one juror is neither unanimous nor a majority
of three (ViPO: all participating models, a majority of three).

Three jurors on three pairs: two against one, three different answers, and a single readable one.

>>> from pipelines.algorithms.voting.ballots import A, B
>>> said = np.array([[A, A, B], [A, B, TIE], [A, NOTHING, NOTHING]], dtype=np.int8)
>>> found = Majority().verdicts(said)
>>> found.choice.tolist() == [A, TIE, TIE], found.agreement.round(2).tolist()
(True, [0.67, 0.33, 0.0])
>>> Unanimous().verdicts(said).choice.tolist() == [TIE, TIE, TIE]
True
"""

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
    """The panel's verdict on each pair."""

    choice: Int8[np.ndarray, " pairs"]
    """Code of a, b or tie; a pair with too few readable ballots is a tie with agreement 0."""
    agreement: Float[np.ndarray, " pairs"]
    """Share of the readable ballots behind the choice, in [0, 1]. It is no probability of being right."""
    counts: Int[np.ndarray, "pairs 4"]
    """Ballots for a, b, tie and nothing."""
    probability: Float[np.ndarray, " pairs"] | None = None
    """Probability that the choice is right, NaN where nobody judged; None from a panel that was not calibrated on people's
    labels."""


class Majority(Config):
    """The answer that most jurors gave; equal first places are a tie."""

    kind: Literal["majority"] = "majority"
    minimum: int | None = Field(None, ge=1)
    """Readable ballots that a pair needs; by default a majority of the jury."""

    def verdicts(self, ballots: Int8[np.ndarray, "pairs jurors"]) -> Verdicts:
        """The plurality of each pair."""
        minimum = ballots.shape[1] // 2 + 1 if self.minimum is None else self.minimum
        counts = count_ballots(ballots)
        return _verdicts(plurality(counts), counts=counts, minimum=minimum)


class Unanimous(Config):
    """The answer that all jurors gave; otherwise a tie."""

    kind: Literal["unanimous"] = "unanimous"
    minimum: int | None = Field(None, ge=1)
    """Readable ballots that a pair needs, all of them equal; by default one of every juror."""

    def verdicts(self, ballots: Int8[np.ndarray, "pairs jurors"]) -> Verdicts:
        """a or b where every readable ballot says so."""
        minimum = ballots.shape[1] if self.minimum is None else self.minimum
        counts = count_ballots(ballots)
        readable = counts[:, :NOTHING].sum(1)
        united = counts[:, :NOTHING].max(1) == readable
        choice = np.where(united, plurality(counts), TIE).astype(np.int8)
        return _verdicts(choice, counts=counts, minimum=minimum)


def count_ballots(ballots: Int8[np.ndarray, "pairs jurors"]) -> Int[np.ndarray, "pairs 4"]:
    """Ballots for a, b, tie and nothing on each pair."""
    return np.stack([(ballots == code).sum(1) for code in range(4)], axis=1)


def plurality(counts: Int[np.ndarray, "pairs 4"]) -> Int8[np.ndarray, " pairs"]:
    """The readable answer with the most ballots; tie where two share the first place or there is none."""
    readable = counts[:, :NOTHING]
    top = readable.max(1, keepdims=True)
    shared = (readable == top).sum(1) > 1
    return np.where(shared, TIE, readable.argmax(1)).astype(np.int8)


def share_behind(choice: Int8[np.ndarray, " pairs"], *, counts: Int[np.ndarray, "pairs 4"]) -> Float[np.ndarray, " pairs"]:
    """Share of the readable ballots of each pair that equal the choice, in [0, 1]; 0 where there is none."""
    return counts[np.arange(len(choice)), choice] / np.maximum(counts[:, :NOTHING].sum(1), 1)


def _verdicts(choice: np.ndarray, *, counts: np.ndarray, minimum: int) -> Verdicts:
    readable = counts[:, :NOTHING].sum(1)
    enough = readable >= minimum
    behind = share_behind(choice, counts=counts)
    return Verdicts(
        choice=np.where(enough, choice, TIE).astype(np.int8), agreement=np.where(enough, behind, 0.0), counts=counts
    )
