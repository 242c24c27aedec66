"""Bradley-Terry strengths by maximum likelihood, with ties, and their bootstrap intervals.

P(i beats j) = sigma(s_i - s_j). A tie is half a win of each, or an outcome of its own with weight
nu sqrt(p_i p_j) beside p_i and p_j (Davidson, 1970), p = exp(s), nu fitted. Both are concave in (s, ln nu): Newton's
method with step halving. The order of the games does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from infra.config import Config, ConfigError
from pipelines.algorithms.rating.counts import Counts, count

_TOLERANCE = 1e-10
_STEPS = 200


class BradleyTerryRating(Config):
    """How strengths are fitted: options of the fit and of its intervals."""

    ties: Literal["half", "davidson"] = "half"
    """A tie as half a win of each, or as an outcome of its own, which does not shrink the strengths."""
    prior: float = Field(0.01, ge=0)
    """Precision of a normal prior on each strength. 0 is pure likelihood: infinite for who wins or loses everything."""
    resamples: int = Field(200, ge=20)
    """Bootstrap resamples of the prompts, each with all its votes."""
    level: float = Field(0.95, gt=0, lt=1)
    """Confidence of the interval."""


@dataclass(frozen=True)
class FittedStrengths:
    """Log strengths, of mean 0: s_i - s_j is the log-odds that i beats j."""

    strength: Float[np.ndarray, " players"]
    tie_weight: float
    """Davidson's nu; 0 where ties are half wins."""


@dataclass(frozen=True)
class StrengthIntervals:
    """Strengths with percentile bootstrap intervals."""

    strength: Float[np.ndarray, " players"]
    low: Float[np.ndarray, " players"]
    high: Float[np.ndarray, " players"]


def fit(counts: Counts, *, options: BradleyTerryRating) -> FittedStrengths:
    """The strengths under which the counted outcomes are most likely."""
    if counts.wins.shape[0] < 2:
        raise ConfigError(f"a rating needs votes on 2 generators, got {counts.wins.shape[0]}; add one to the roster")
    if options.prior == 0 and not _is_strongly_connected(counts):
        raise ConfigError(
            "Bradley-Terry without a prior needs that every generator has won or tied, directly or through others, "
            "against every other; set prior above 0 or collect more votes"
        )
    problem = _Problem(counts, options=options)
    position = np.zeros(problem.size)
    value = problem.objective(position)
    for _ in range(_STEPS):
        gradient, hessian = problem.derivatives(position)
        if np.abs(gradient).max() < _TOLERANCE * max(1.0, problem.games):
            break
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        length = 1.0
        while length > 1e-8 and problem.objective(position - length * step) > value:
            length /= 2
        position = position - length * step
        value = problem.objective(position)
    strength = position[: problem.players]
    tie_weight = float(np.exp(position[-1])) if options.ties == "davidson" else 0.0
    return FittedStrengths(strength=strength - strength.mean(), tie_weight=tie_weight)


def fit_with_intervals(
    first: Sequence[int],
    *,
    second: Sequence[int],
    choice: Sequence[str],
    prompt: Sequence[str],
    players: int,
    options: BradleyTerryRating,
    generator: np.random.Generator,
) -> StrengthIntervals:
    """Strengths of the players with intervals from resampling prompts, each with all votes on its pictures.

    `choice` is a (first won), b or tie. Votes of one prompt share its pictures and are not independent; resampling them one
    by one would give intervals that are too narrow.
    """
    counts = count(first, second=second, choice=choice, players=players)
    if not len(choice):
        raise ConfigError("an arena needs votes, got none; judge some pairs first")
    cells = _cells(first, second=second, choice=choice, players=players)
    names, place = np.unique(np.asarray(prompt, dtype=object).astype(str), return_inverse=True)
    # A resample may lose the only win of a player: without a prior its strength would be infinite.
    kept = options if options.prior > 0 else options.model_copy(update={"prior": 1e-6})
    drawn = []
    for times in generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=options.resamples):
        tally = np.bincount(cells, weights=times[place], minlength=2 * players**2).astype(np.int64)
        wins, ties = tally.reshape(2, players, players)
        drawn.append(fit(Counts(wins=wins, ties=ties + ties.T), options=kept).strength)
    tail = (1 - options.level) / 2
    low, high = np.quantile(np.stack(drawn), [tail, 1 - tail], axis=0)
    return StrengthIntervals(strength=fit(counts, options=options).strength, low=low, high=high)


def _cells(
    first: Sequence[int], *, second: Sequence[int], choice: Sequence[str], players: int
) -> Int[np.ndarray, " games"]:
    """The cell that each game adds 1 to, in a table of wins [winner, loser] followed by one of ties [first, second]."""
    a, b, outcome = np.asarray(first), np.asarray(second), np.asarray(choice, dtype=object)
    decided = np.where(outcome == "b", b * players + a, a * players + b)
    return decided + np.where(outcome == "tie", players**2, 0)


class _Problem:
    """Minus the log-posterior of the counts as a multinomial logit: outcomes are linear in (s_1 ... s_n, ln nu)."""

    def __init__(self, counts: Counts, *, options: BradleyTerryRating) -> None:
        self.players = counts.wins.shape[0]
        i, j = np.triu_indices(self.players, k=1)
        i_wins, j_wins, ties = counts.wins[i, j], counts.wins[j, i], counts.ties[i, j]
        played = i_wins + j_wins + ties > 0
        i, j, i_wins, j_wins, ties = i[played], j[played], i_wins[played], j_wins[played], ties[played]
        one_hot = np.eye(self.players)
        if options.ties == "half":
            self.weights = np.stack([i_wins + 0.5 * ties, j_wins + 0.5 * ties], axis=1)
            self.features = np.stack([one_hot[i], one_hot[j]], axis=1)
        else:
            self.weights = np.stack([i_wins, j_wins, ties], axis=1).astype(float)
            even = 0.5 * (one_hot[i] + one_hot[j])
            last = np.broadcast_to([[0.0], [0.0], [1.0]], (len(i), 3, 1))
            self.features = np.concatenate([np.stack([one_hot[i], one_hot[j], even], axis=1), last], axis=2)
        self.size = self.features.shape[2]
        self.totals = self.weights.sum(1)
        self.games = float(self.totals.sum())
        self.precision = np.full(self.size, options.prior)
        if options.ties == "davidson":
            # Keeps ln nu finite when nothing was a tie, or everything was.
            self.precision[-1] = max(options.prior, 1e-6)

    def objective(self, position: np.ndarray) -> float:
        scores = self.features @ position
        top = scores.max(1, keepdims=True)
        log_total = top[:, 0] + np.log(np.exp(scores - top).sum(1))
        fit = (self.totals * log_total).sum() - (self.weights * scores).sum()
        return float(fit + 0.5 * (self.precision * position**2).sum())

    def derivatives(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = self.features @ position
        probability = np.exp(scores - scores.max(1, keepdims=True))
        probability /= probability.sum(1, keepdims=True)
        expected = np.einsum("po,pof->pf", probability, self.features)
        gradient = self.totals @ expected - np.einsum("po,pof->f", self.weights, self.features)
        second = np.einsum("p,po,pof,pog->fg", self.totals, probability, self.features, self.features, optimize=True)
        hessian = second - np.einsum("p,pf,pg->fg", self.totals, expected, expected, optimize=True)
        return gradient + self.precision * position, hessian + np.diag(self.precision)


def _is_strongly_connected(counts: Counts) -> bool:
    """Whether everybody reaches everybody over wins and ties: then the likelihood has a finite maximum (Ford, 1957)."""
    reach = (counts.wins + counts.ties > 0) | np.eye(len(counts.wins), dtype=bool)
    for _ in range(len(reach).bit_length()):
        reach = reach @ reach
    return bool(reach.all())
