"""The posterior gap of a pair: by how much the winner is better, given who made it and that it won (ArenaPO, eq. 12).

The difference in quality of two pictures is N(m, s^2) with m = mu_w - mu_l before the comparison; given that the winner is
the better one, its mean is m + s lambda(m / s), lambda = pdf / cdf. What s is has two readings:
* "rating": s^2 = sigma_w^2 + sigma_l^2, the uncertainty of the two generators' strengths. It gives the paper's Table 1.
* "picture": s^2 = sigma_w^2 + sigma_l^2 + 2 beta^2, with beta the spread of single pictures around their generator's
  strength. This is the model in which the ratings are made ("a single draw" from the capability distributions, Section 4):
  gaps are larger, closer to each other, and stay above 0 where sigma goes to 0 (a rating with tau = 0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

from pipelines.algorithms.rating.normal import excess

GapSpread = Literal["rating", "picture"]
"""What the spread of a quality difference is made of: the type of an option."""


def posterior_gap(
    mu_winner: float, *, sigma_winner: float, mu_loser: float, sigma_loser: float, beta: float = 0.0
) -> float:
    """E[q_w - q_l | q_w > q_l], in the units of mu: above max(0, m), and finite for any m / s.

    `beta` is the spread of single pictures; 0 leaves it out. The first row of ArenaPO's Table 1, and one in which the
    weaker generator won:

    >>> round(posterior_gap(28.21, sigma_winner=0.80, mu_loser=23.41, sigma_loser=0.77), 2)
    4.8
    >>> round(posterior_gap(22.97, sigma_winner=0.83, mu_loser=26.59, sigma_loser=0.82), 2)
    0.32

    With the spread of single pictures that surprising win means more:

    >>> round(posterior_gap(22.97, sigma_winner=0.83, mu_loser=26.59, sigma_loser=0.82, beta=25 / 6), 2)
    3.69
    """
    spread = math.sqrt(sigma_winner**2 + sigma_loser**2 + 2 * beta**2)
    if spread == 0:
        return max(0.0, mu_winner - mu_loser)
    return spread * excess((mu_winner - mu_loser) / spread)


def posterior_gaps(
    winners: Sequence[str], *, losers: Sequence[str], strengths: Mapping[str, tuple[float, float]], beta: float
) -> list[float | None]:
    """The gap of every pair by its generators' (mu, sigma); None where a generator has no strength.

    `beta` is the spread of single pictures; 0 leaves it out.
    """

    @cache  # a million pairs are of a few hundred couples of generators
    def gap(won: str, lost: str) -> float | None:
        if won not in strengths or lost not in strengths:
            return None
        (mu, sigma), (mu_loser, sigma_loser) = strengths[won], strengths[lost]
        return posterior_gap(mu, sigma_winner=sigma, mu_loser=mu_loser, sigma_loser=sigma_loser, beta=beta)

    return [gap(won, lost) for won, lost in zip(winners, losers, strict=True)]
