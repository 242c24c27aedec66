"""Gaussian strengths from two-player games, as TrueSkill updates them (Herbrich et al., 2006), ties included.

Every game adds tau^2 to both variances, then conditions on the outcome. With tau > 0 the mean remembers about the last
hundred games, and sigma settles near 0.8 as in ArenaPO's tables; with tau = 0 nothing is forgotten, what is left of the
order of the games can be averaged away, and sigma goes to 0.

Plain floats in one loop: games are sequential, so arrays do not help, and numpy's scalars are slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

import numpy as np
from pydantic import Field

from infra.config import Config, ConfigError
from pipelines.algorithms.rating.normal import ROOT_HALF, ROOT_TWO_OVER_PI, TAIL, hazard


class GaussianRating(Config):
    """The prior of a strength, and how games change it."""

    mu: float = 25.0
    """Strength before the first game."""
    sigma: float = Field(25 / 3, gt=0)
    """Uncertainty before the first game."""
    beta: float = Field(25 / 6, gt=0)
    """Spread of one picture's quality around its generator's strength."""
    tau: float = Field(25 / 300, ge=0)
    """Uncertainty added by every game; 0 forgets nothing."""
    draw_probability: float = Field(0.10, gt=0, lt=1)
    """Share of ties expected between equals; sets the width of a tie."""
    orders: int = Field(1, ge=1)
    """Orders of the games to average over: the given one, then shuffled ones. More than 1 needs tau = 0."""


@dataclass(frozen=True)
class Strengths:
    """One entry a player."""

    mu: list[float]
    sigma: list[float]
    spread: list[float]
    """Standard deviation of mu over the orders; 0 with one order."""

    def scores(self) -> list[float]:
        """mu - 3 sigma: a strength that is almost certainly exceeded."""
        return [mu - 3 * sigma for mu, sigma in zip(self.mu, self.sigma, strict=True)]


def rate(
    first: Sequence[int],
    *,
    second: Sequence[int],
    choice: Sequence[str],
    players: int,
    options: GaussianRating,
    generator: np.random.Generator,
) -> Strengths:
    """Strengths after the games in their order; `choice` is a (first won), b or tie; `generator` shuffles."""
    if options.orders > 1 and options.tau > 0:
        raise ConfigError(
            f"GaussianRating: orders = {options.orders} averages what tau = {options.tau} forgets; set tau to 0"
        )
    if players < 2:
        raise ConfigError(f"a rating needs votes on 2 generators, got {players}; add one to the roster")
    games = list(zip(first, second, choice, strict=True))
    runs = []
    for turn in range(options.orders):
        order = games if turn == 0 else [games[place] for place in generator.permutation(len(games)).tolist()]
        runs.append(_play(order, players=players, options=options))
    mus = list(zip(*(mu for mu, _ in runs), strict=True))
    variances = list(zip(*(variance for _, variance in runs), strict=True))
    return Strengths(
        mu=[fmean(values) for values in mus],
        sigma=[math.sqrt(fmean(values)) for values in variances],
        spread=[float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for values in mus],
    )


def _play(
    games: Sequence[tuple[int, int, str]], *, players: int, options: GaussianRating
) -> tuple[list[float], list[float]]:
    """Means and variances after the games."""
    mu = [options.mu] * players
    variance = [options.sigma**2] * players
    noise, drift = 2 * options.beta**2, options.tau**2
    tie_width = NormalDist().inv_cdf((1 + options.draw_probability) / 2) * math.sqrt(noise)
    sqrt, exp, erfc = math.sqrt, math.exp, math.erfc
    for winner, loser, choice in games:
        if choice == "b":
            winner, loser = loser, winner
        won, lost = variance[winner] + drift, variance[loser] + drift
        total = won + lost + noise
        scale = sqrt(total)
        if choice == "tie":
            shift, shrink = _tie((mu[winner] - mu[loser]) / scale, width=tie_width / scale)
        else:
            x = (mu[winner] - mu[loser] - tie_width) / scale
            shift = ROOT_TWO_OVER_PI * exp(-0.5 * x * x) / erfc(-x * ROOT_HALF) if x > TAIL else hazard(x)
            shrink = shift * (shift + x)
        mu[winner] += won / scale * shift
        mu[loser] -= lost / scale * shift
        variance[winner] = won * (1 - won / total * shrink)
        variance[loser] = lost * (1 - lost / total * shrink)
    return mu, variance


def _tie(x: float, *, width: float) -> tuple[float, float]:
    """How a tie moves the mean and shrinks the variance, for a difference x that fell within +-width.

    Both densities are taken relative to that of the nearer edge, so nothing underflows however surprising the tie.
    """
    near, far = width - abs(x), -width - abs(x)
    ratio = math.exp(-2 * width * abs(x))
    mass = 1 / hazard(near) - ratio / hazard(far)
    shift = math.expm1(-2 * width * abs(x)) / mass
    shrink = shift * shift + (near - far * ratio) / mass
    return math.copysign(shift, -x) if x else 0.0, shrink
