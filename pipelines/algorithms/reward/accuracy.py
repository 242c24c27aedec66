"""How often a reward model orders a pair as people do: without ties, with ties, and by noise level.

Ties excluded: over decided pairs. An exact 0 is wrong, or half right for scorers of few values, for which VideoAlign tosses
a coin. Ties included (Deutsch et al., 2023): differences within a threshold are called ties, three classes are scored, and
the best threshold is taken, none included. Intervals resample prompts: pairs of one prompt share pictures and are not
independent. Where every pair is right (or none is) resampling sees no spread, and the interval has width 0.

The SLRM paper prints accuracies at the steps 1, 101, ..., 901 of 1000. `GRID` has these times with the clean latents in
front; a `Band` is a mean over the low, the high or all of the ten.
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

GRID = (0.0, *(round(0.001 + 0.1 * place, 3) for place in range(10)))
"""Times at which accuracy is measured: 0, then .001, .101, ..., .901."""
Band = Literal["low", "high", "all"]
BANDS: dict[Band, tuple[float, ...]] = {"low": GRID[1:6], "high": GRID[6:], "all": GRID[1:]}
"""Times that a mean accuracy is over: the five of low noise, the five of high noise, all ten. Clean latents are in none."""


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
    right = _right(np.asarray(difference)[None], outcome=outcome, groups=groups, zero=zero)[0]
    return _over_prompts(right, outcome=outcome, groups=groups, generator=generator, bootstrap=bootstrap)


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


def by_band(
    difference: Float[np.ndarray, "times pairs"],
    *,
    t: Sequence[float],
    outcome: Int[np.ndarray, " pairs"],
    groups: Sequence[Hashable],
    generator: np.random.Generator,
    bootstrap: Bootstrap = BOOTSTRAP,
    zero: Zero = "wrong",
) -> dict[Band, Interval]:
    """Ties-excluded accuracy averaged over the times of each band; ConfigError where `t` lacks one of them.

    A resampled prompt brings its pairs at all times of the band: one pair's answers at two times are not independent. `n`
    counts pairs, not answers.
    """
    place = {round(time, 6): number for number, time in enumerate(t)}
    if missing := [time for time in BANDS["all"] if round(time, 6) not in place]:
        raise ConfigError(f"means over times need the score differences at t = {missing[0]}; measure at all times of GRID")
    right = _right(np.asarray(difference), outcome=outcome, groups=groups, zero=zero)
    found: dict[Band, Interval] = {}
    for band, times in BANDS.items():
        mean = right[[place[round(time, 6)] for time in times]].mean(0)
        found[band] = _over_prompts(mean, outcome=outcome, groups=groups, generator=generator, bootstrap=bootstrap)
    return found


def _right(
    difference: Float[np.ndarray, "times pairs"],
    *,
    outcome: Int[np.ndarray, " pairs"],
    groups: Sequence[Hashable],
    zero: Zero,
) -> Float[np.ndarray, "times decided"]:
    """1 where a decided pair is ordered as its outcome says, otherwise 0; an equal score counts as `zero` says."""
    _refuse_nan(difference)
    outcome = np.asarray(outcome)
    if len(groups) != difference.shape[1]:
        raise ConfigError(f"{difference.shape[1]} pairs in {len(groups)} groups; give each pair the id of its prompt")
    lead = difference[:, outcome != 0]
    right = (np.sign(lead) == outcome[outcome != 0]).astype(float)
    if zero == "half":
        right[lead == 0] = 0.5
    return right


def _over_prompts(
    right: Float[np.ndarray, " decided"],
    *,
    outcome: Int[np.ndarray, " pairs"],
    groups: Sequence[Hashable],
    generator: np.random.Generator,
    bootstrap: Bootstrap,
) -> Interval:
    decided = [groups[place] for place in np.flatnonzero(outcome).tolist()]
    return mean_interval(right, groups=decided, generator=generator, options=bootstrap)


def _refuse_nan(difference: np.ndarray) -> None:
    if np.isnan(difference).any():
        raise ConfigError(f"{int(np.isnan(difference).sum())} reward differences are nan; mask failed rewards first")
