"""Several dimensions of quality as one: a weighted mean with the user's weights, or a single dimension (Liu et al., 2025,
Section 5.2: multi-dimensional alignment by linear scalarisation, single-dimensional alignment).

Margins of different dimensions must be on one scale before they are added: divide each by its `scale_of`. Words of people
(a: 1, tie: 0, b: -1) are on one scale already: dividing them by their spread would weigh a dimension by how often it ties.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from infra.config import Config, ConfigError

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


def _shares(known: list[str], *, weights: Mapping[str, float]) -> dict[str, float]:
    """Weights of the dimensions that have one, summing to 1."""
    total = sum(weights.values())
    for name in weights:
        if name not in known:
            raise ConfigError(f"dimension {name!r} has a weight but no scores; known are: {', '.join(sorted(known))}")
    return {name: weight / total for name, weight in weights.items() if weight > 0}
