"""The posterior gap of a pair: by how much the winner is better, given who made it and that it won (ArenaPO, eq. 12).

Qualities are draws from the generators' strengths, so the difference is N(m, s^2) with m = mu_w - mu_l and
s^2 = sigma_w^2 + sigma_l^2; given that it is positive, its mean is m + s lambda(m / s), lambda = pdf / cdf.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from pipelines.algorithms.rating.normal import excess


def posterior_gap(mu_winner: float, *, sigma_winner: float, mu_loser: float, sigma_loser: float) -> float:
    """E[q_w - q_l | q_w > q_l], in the units of mu: above max(0, m), and finite for any m / s."""
    spread = math.hypot(sigma_winner, sigma_loser)
    if spread == 0:
        return max(0.0, mu_winner - mu_loser)
    return spread * excess((mu_winner - mu_loser) / spread)


def posterior_gaps(
    winner: Sequence[int], *, loser: Sequence[int], mu: Sequence[float], sigma: Sequence[float]
) -> list[float]:
    """The gap of every pair; its generators are positions in `mu` and `sigma`. The same two are computed once."""

    @cache
    def gap(won: int, lost: int) -> float:
        return posterior_gap(mu[won], sigma_winner=sigma[won], mu_loser=mu[lost], sigma_loser=sigma[lost])

    return [gap(won, lost) for won, lost in zip(winner, loser, strict=True)]
