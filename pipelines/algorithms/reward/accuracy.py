"""How often a reward model orders a pair as people do: without ties, with ties, and by noise level.

Ties excluded: over decided pairs. An exact 0 is wrong, or half right for scorers of few values, for which VideoAlign tosses
a coin. Ties included (Deutsch et al., 2023): differences within a threshold are called ties, three classes are scored, and
the best threshold is taken, none included. Intervals resample prompts: pairs of one prompt share pictures and are not
independent. Where every pair is right (or none is) resampling sees no spread, and the interval has width 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from infra.config import ConfigError
from pipelines.algorithms.metrics.bootstrap import Bootstrap, mean_interval
from pipelines.algorithms.metrics.interval import Interval

BOOTSTRAP = Bootstrap()
Zero = Literal["wrong", "half"]
"""How a decided pair counts whose two rewards are equal: "half" suits scorers of few values, such as Likert grades."""


@dataclass(frozen=True)
class TiesIncluded:
    """Three-class accuracy at the threshold that suits it best."""

    accuracy: float
    threshold: float
    """Differences of at most this size are ties; a negative threshold calls nothing a tie."""


@dataclass(frozen=True)
class AccuracyAtTime:
    """Accuracy of a noise-aware reward model at one time in [0, 1], without ties and with them."""

    t: float
    excluded: Interval
    """Ties-excluded accuracy over the `n` decided pairs."""
    included: TiesIncluded
    """Ties-included accuracy over all pairs."""


def ties_excluded(
    difference: Float[np.ndarray, " pairs"],
    *,
    outcome: Int[np.ndarray, " pairs"],
    groups: Sequence[Hashable],
    generator: np.random.Generator,
    bootstrap: Bootstrap = BOOTSTRAP,
    zero: Zero = "wrong",
) -> Interval:
    """Share of decided pairs (outcome 1 or -1) whose r_a - r_b has the outcome's sign.

    groups: each pair's prompt; the interval comes from resampling prompts.
    """
    difference, outcome = np.asarray(difference), np.asarray(outcome)
    _refuse_nan(difference)
    if len(groups) != len(difference):
        raise ConfigError(f"{len(difference)} pairs in {len(groups)} groups; give each pair the id of its prompt")
    decided = np.flatnonzero(outcome)
    right = (np.sign(difference[decided]) == outcome[decided]).astype(float)
    if zero == "half":
        right[difference[decided] == 0] = 0.5
    return mean_interval(right, groups=[groups[i] for i in decided.tolist()], generator=generator, options=bootstrap)


def ties_included(difference: Float[np.ndarray, " pairs"], *, outcome: Int[np.ndarray, " pairs"]) -> TiesIncluded:
    """The best three-class accuracy over every threshold; outcome is 1 (a), 0 (tie) or -1 (b).

    >>> ties_included(np.array([2.0, -0.1, 0.3, -1.0]), outcome=np.array([1, 0, 0, -1]))
    TiesIncluded(accuracy=1.0, threshold=0.3)
    """
    difference, outcome = np.asarray(difference, dtype=np.float64), np.asarray(outcome)
    _refuse_nan(difference)
    if not len(difference):
        raise ConfigError("ties-included accuracy needs at least one pair, got none")
    order = np.argsort(np.abs(difference), kind="stable")
    size, sign, truth = np.abs(difference)[order], np.sign(difference)[order], outcome[order]
    decided_right = (sign == truth) & (truth != 0)
    # With the smallest k differences called ties: ties among them, and right signs among the rest.
    right = (
        np.concatenate([[0], np.cumsum(truth == 0)]) + decided_right.sum() - np.concatenate([[0], np.cumsum(decided_right)])
    )
    # A threshold takes all pairs of one size together, so k may only end where the size changes.
    ends = np.concatenate([[0], np.flatnonzero(np.append(size[1:] != size[:-1], True)) + 1])
    best = ends[np.argmax(right[ends])]
    return TiesIncluded(accuracy=float(right[best] / len(size)), threshold=float(size[best - 1]) if best else -1.0)


def by_time(
    difference: Float[np.ndarray, "times pairs"],
    *,
    t: Sequence[float],
    outcome: Int[np.ndarray, " pairs"],
    groups: Sequence[Hashable],
    generator: np.random.Generator,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> list[AccuracyAtTime]:
    """The by-timestep table: both accuracies of r_a - r_b at each time in [0, 1]; groups as in `ties_excluded`."""
    rows = []
    for time, at_time in zip(t, np.asarray(difference), strict=True):
        excluded = ties_excluded(at_time, outcome=outcome, groups=groups, generator=generator, bootstrap=bootstrap)
        rows.append(AccuracyAtTime(float(time), excluded, ties_included(at_time, outcome=outcome)))
    return rows


def _refuse_nan(difference: np.ndarray) -> None:
    if np.isnan(difference).any():
        raise ConfigError(f"{int(np.isnan(difference).sum())} reward differences are nan; mask failed rewards first")
