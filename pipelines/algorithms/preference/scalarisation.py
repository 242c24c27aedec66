"""Several dimensions of quality as one: a weighted mean with the user's weights, or a single dimension (Liu et al., 2025,
Section 5.2: multi-dimensional alignment by linear scalarisation, single-dimensional alignment).

Scores of different dimensions must be on one scale before they are added: `normalised` puts each at mean 0 and standard
deviation 1 over the data set, which is also what the exponential of `rwr` wants. Words of people (a: 1, tie: 0, b: -1)
are on one scale already: dividing them by their spread would weigh a dimension by how often it ties.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from infra.config import Config, ConfigError

LEADS = {"a": 1.0, "tie": 0.0, "b": -1.0}
ROUNDING = 1e-9  # a lead below is a tie: weights such as 0.1 + 0.2 - 0.3 do not add up to 0


@dataclass(frozen=True)
class Scalarised:
    """One label per pair from those of its dimensions."""

    choices: list[str]
    """a, b or tie."""
    lead: Float[np.ndarray, " pairs"]
    """Weighted mean of the dimensions' margins, or of their words (a: 1, tie: 0, b: -1)."""
    agreement: Float[np.ndarray, " pairs"]
    """Share of the weight whose dimensions say what `choices` says, in [0, 1]: a soft label's confidence."""


class Linear(Config):
    """The weighted mean of dimensions."""

    kind: Literal["linear"] = "linear"
    weights: dict[str, float] = Field(min_length=1)
    """Weight of each dimension, 0 or more: a dimension turned round would be trained against."""

    @model_validator(mode="after")
    def _positive(self) -> Linear:
        for name, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(
                    f"weight of {name!r} is {weight}; give 0 or more, the preference must not be turned round"
                )
        if not sum(self.weights.values()) > 0:
            raise ConfigError(f"all weights of {', '.join(self.weights)} are 0; give one of them some weight")
        return self


class Single(Config):
    """One dimension alone."""

    kind: Literal["single"] = "single"
    dimension: str
    """Name of the dimension."""

    @property
    def weights(self) -> dict[str, float]:
        """All weight on that dimension."""
        return {self.dimension: 1.0}


Scalarisation = Annotated[Linear | Single, Field(discriminator="kind")]
"""How several dimensions become one: the type of an option."""


def scalar_scores(
    scores: Mapping[str, Float[np.ndarray, " pictures"]], *, scalarisation: Linear | Single
) -> Float[np.ndarray, " pictures"]:
    """The weighted mean of each picture's scores; put them on one scale first (`normalised`)."""
    shares = _shares(list(scores), weights=scalarisation.weights)
    return np.sum([share * scores[name] for name, share in shares.items()], axis=0)


def scalar_labels(labels: Mapping[str, Sequence[str]], *, scalarisation: Linear | Single) -> Scalarised:
    """The weighted majority of each pair's labels (a, b, tie) in several dimensions; an exact balance is a tie."""
    shares = _shares(list(labels), weights=scalarisation.weights)
    for name in shares:
        if strange := set(labels[name]) - set(LEADS):
            raise ConfigError(f"label {sorted(strange)[0]!r} of {name!r} is none of a, b, tie; label the pairs first")
    words = {name: np.array([LEADS[word] for word in labels[name]], dtype=np.float64) for name in shares}
    lead = np.sum([share * words[name] for name, share in shares.items()], axis=0)
    sign = np.where(np.abs(lead) < ROUNDING, 0.0, np.sign(lead))
    agreement = np.sum([share * (words[name] == sign) for name, share in shares.items()], axis=0)
    choices = ["b" if s < 0 else "a" if s > 0 else "tie" for s in sign.tolist()]
    return Scalarised(choices=choices, lead=lead, agreement=agreement)


def scalar_margins(margins: Mapping[str, Float[np.ndarray, " pairs"]], *, scalarisation: Linear | Single) -> Scalarised:
    """The weighted mean of each pair's margins (a minus b), on one scale (`scale_of`); an exact balance is a tie.

    Agreement is the share of the weight whose margins have the sign of the mean.
    """
    shares = _shares(list(margins), weights=scalarisation.weights)
    lead = np.sum([share * margins[name] for name, share in shares.items()], axis=0)
    lead = np.where(np.abs(lead) < ROUNDING, 0.0, lead)
    agreement = np.sum([share * (np.sign(margins[name]) == np.sign(lead)) for name, share in shares.items()], axis=0)
    choices = ["b" if one < 0 else "a" if one > 0 else "tie" for one in lead.tolist()]
    return Scalarised(choices=choices, lead=lead, agreement=agreement)


def scale_of(margins: Float[np.ndarray, " pairs"]) -> float:
    """What margins are divided by: 1 for words (+1, 0, -1), else the standard deviation of a single score.

    The margin of two independent scores has sqrt(2) times their deviation; its own mean is no part of it, since which
    picture is a and which is b means nothing.
    """
    if not len(margins) or np.isin(margins, (-1.0, 0.0, 1.0)).all():
        return 1.0
    return float(np.sqrt(np.mean(margins**2) / 2)) or 1.0


def normalised(scores: Float[np.ndarray, " pictures"]) -> Float[np.ndarray, " pictures"]:
    """Scores at mean 0 and standard deviation 1 (ddof 0); zeros where all are the same."""
    if not len(scores):
        return scores
    spread = float(np.std(scores))
    return (scores - np.mean(scores)) / spread if spread > 0 else np.zeros_like(scores)


def _shares(known: list[str], *, weights: Mapping[str, float]) -> dict[str, float]:
    """Weights of the dimensions that have one, summing to 1."""
    total = sum(weights.values())
    for name in weights:
        if name not in known:
            raise ConfigError(f"dimension {name!r} has a weight but no scores; known are: {', '.join(sorted(known))}")
    return {name: weight / total for name, weight in weights.items() if weight > 0}
