"""Gaussian strengths from two-player games, as TrueSkill updates them (Herbrich et al., 2006), ties included.

Every game adds tau^2 to both variances, then conditions on the outcome. With tau > 0 the mean remembers about the last
hundred games, so it depends on their order, and sigma settles near 0.8 as in ArenaPO's tables; with tau = 0 nothing is
forgotten, what is left of the order of the games can be averaged away, and sigma goes to 0.

Plain floats in one loop: games are sequential, so arrays do not help, and numpy's scalars are slower. A shuffled order
tells only how far strengths spread, and games that tau > 0 has forgotten need not be played for that: see `_centred`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np
from pydantic import Field, model_validator

from infra.config import Config, ConfigError
from pipelines.algorithms.rating.normal import ROOT_HALF, ROOT_TWO_OVER_PI, TAIL, hazard

GAMES = 1000
"""Last games of an order that are tried first, for each player, where the earlier ones may be forgotten."""
FORGOTTEN = 1e-9
"""Largest difference, in units of mu, that the games before the last ones may still make."""

Games = tuple[np.ndarray, np.ndarray, np.ndarray]
"""int[games] winners and losers, and bool[games] whether it was a tie."""


class GaussianRating(Config):
    """The prior of a strength, and how games change it."""

    mu: float = 25.0
    """Strength before the first game."""
    sigma: float = Field(25 / 3, gt=0)
    """Uncertainty before the first game."""
    beta: float = Field(25 / 6, gt=0)
    """Spread of one picture's quality around its generator's strength."""
    tau: float = Field(25 / 300, ge=0)
    """Uncertainty added by every game; 0 forgets nothing, and sigma goes to 0. Gaps then need the spread "picture", see
    `rating.gap`."""
    draw_probability: float = Field(0.10, ge=0, lt=1)
    """Share of ties expected between equals; sets the width of a tie. ArenaPO's formula has 0: nothing is a tie."""
    orders: int = Field(8, ge=1)
    """Orders in which the games are played: the given one, then shuffled ones. Their spread in mu says how much of a
    strength is the order of its games; with 1 it is not known."""
    average: bool = False
    """Strengths are the means over all orders instead of those of the given order. Needs tau = 0."""

    @model_validator(mode="after")
    def _averages_what_is_kept(self) -> GaussianRating:
        if self.average and self.tau > 0:
            raise ConfigError(f"GaussianRating: average = True averages what tau = {self.tau} forgets; set tau to 0")
        return self


@dataclass(frozen=True)
class Strengths:
    """One entry per player."""

    mu: list[float]
    sigma: list[float]
    spread: list[float | None]
    """Standard deviation over orders of the games of mu minus the mean of all mu, since only differences mean something;
    None with one order."""

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
    """Strengths after the games in their order; `choice` is a (first won), b or tie; `generator` shuffles.

    The winner of the first game gains as much as the loser loses (4.396 of 25, TrueSkill's published example):

    >>> options = GaussianRating(orders=1)
    >>> made = rate([0], second=[1], choice=["a"], players=2, options=options, generator=np.random.default_rng(0))
    >>> [round(mu, 3) for mu in made.mu]
    [29.396, 20.604]
    """
    if players < 2:
        raise ConfigError(f"a rating needs votes on 2 generators, got {players}; add one to the roster")
    outcomes = np.asarray(choice, dtype=object)
    ties = outcomes == "tie"
    if options.draw_probability == 0 and ties.any():
        raise ConfigError(
            f"GaussianRating: draw_probability = 0 leaves no room for ties, and {ties.sum()} of {len(ties)} games are "
            "ties; set it above 0, or leave ties out"
        )
    seats = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    turned = outcomes == "b"
    games = np.where(turned, *seats[::-1]), np.where(turned, *seats), ties
    runs = [_play(games, _start(players, options), options)]
    centred = [_around_mean(runs[0][0])]
    for _ in range(options.orders - 1):
        order = generator.permutation(len(ties))
        if options.average:
            runs.append(_play(_taken(games, order), _start(players, options), options))
            centred.append(_around_mean(runs[-1][0]))
        else:
            centred.append(_centred(games, order, players=players, options=options))
    mus, variances = (zip(*every, strict=True) for every in zip(*runs, strict=True))
    return Strengths(
        mu=[fmean(values) for values in mus],
        sigma=[math.sqrt(fmean(values)) for values in variances],
        spread=[stdev(values) if len(values) > 1 else None for values in zip(*centred, strict=True)],
    )


def _centred(games: Games, order: np.ndarray, *, players: int, options: GaussianRating) -> list[float]:
    """Each player's mu minus the mean of all, after the games in this order.

    With tau > 0 the differences between players forget their past at a geometric rate, so the last games alone give them.
    How many that is depends on the games. Therefore they are played from two very different starts: once both end
    alike, whatever came before would have ended there, too; otherwise twice as many are tried.
    """
    count = GAMES * players
    while options.tau > 0 and 4 * count <= len(order):
        last = _taken(games, order[-count:])
        mu, variance = _start(players, options)
        other = [value + (options.sigma if place % 2 else -options.sigma) for place, value in enumerate(mu)]
        one = _around_mean(_play(last, (mu, variance), options)[0])
        two = _around_mean(_play(last, (other, [0.25 * value for value in variance]), options)[0])
        if max(abs(here - there) for here, there in zip(one, two, strict=True)) < FORGOTTEN:
            return one
        count *= 2
    return _around_mean(_play(_taken(games, order), _start(players, options), options)[0])


def _start(players: int, options: GaussianRating) -> tuple[list[float], list[float]]:
    return [options.mu] * players, [options.sigma**2] * players


def _taken(games: Games, order: np.ndarray) -> Games:
    winners, losers, ties = games
    return winners[order], losers[order], ties[order]


def _around_mean(mu: Sequence[float]) -> list[float]:
    mean = fmean(mu)
    return [value - mean for value in mu]


def _play(games: Games, start: tuple[list[float], list[float]], options: GaussianRating) -> tuple[list[float], list[float]]:
    """Means and variances after the games."""
    mu, variance = (list(values) for values in start)
    noise, drift = 2 * options.beta**2, options.tau**2
    tie_width = NormalDist().inv_cdf((1 + options.draw_probability) / 2) * math.sqrt(noise)
    sqrt, exp, erfc = math.sqrt, math.exp, math.erfc
    for winner, loser, tie in zip(*(column.tolist() for column in games), strict=True):
        won, lost = variance[winner] + drift, variance[loser] + drift
        total = won + lost + noise
        scale = sqrt(total)
        if tie:
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
