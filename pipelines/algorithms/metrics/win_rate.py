"""Win rate of a tuned generator over its base on identical prompts and seeds: with a tie as half a win, or without ties.

Both are worth printing: jurors tie often, and VideoAlign's win rates leave ties out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

from infra.config import ConfigError
from pipelines.algorithms.metrics.bootstrap import Bootstrap, mean_interval
from pipelines.algorithms.metrics.interval import Interval


def wins(base: Float[np.ndarray, " n"], *, tuned: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """1 where tuned scores higher, 0 where base does, one half where they are equal; a failed score (nan) stays nan."""
    return 0.5 * (1 + np.sign(np.asarray(tuned, dtype=np.float64) - np.asarray(base, dtype=np.float64)))


def win_rate(
    outcomes: Float[np.ndarray, " n"],
    *,
    base_seeds: Sequence[int],
    tuned_seeds: Sequence[int],
    groups: Sequence[Hashable],
    generator: np.random.Generator,
    options: Bootstrap,
) -> Interval:
    """Mean of `outcomes` (1 tuned better, 0 base better, one half a tie) with its bootstrap interval.

    Outcomes that are nan are failed comparisons and leave the rate; other seeds for tuned than for base are refused.
    """
    if list(base_seeds) != list(tuned_seeds):
        raise ConfigError("win rate needs identical seeds for base and tuned; render both with the same sample indices")
    outcomes = np.asarray(outcomes, dtype=np.float64)
    if len(base_seeds) != len(outcomes) or len(groups) != len(outcomes):
        raise ConfigError(
            f"{len(outcomes)} outcomes, {len(base_seeds)} seeds, {len(groups)} groups; give one of each per row"
        )
    compared = np.isfinite(outcomes)
    if not np.isin(outcomes[compared], (0.0, 0.5, 1.0)).all():
        raise ConfigError("an outcome is 1, 0.5 or 0; turn scores into outcomes with wins() first")
    kept = [group for group, valid in zip(groups, compared, strict=True) if valid]
    return mean_interval(outcomes[compared], groups=kept, generator=generator, options=options)


def decided_win_rate(
    outcomes: Float[np.ndarray, " n"],
    *,
    groups: Sequence[Hashable],
    generator: np.random.Generator,
    options: Bootstrap,
) -> Interval | None:
    """Share of wins among the decided `outcomes` (1 or 0; ties of one half and nan left out); None where all are ties."""
    outcomes = np.asarray(outcomes, dtype=np.float64)
    decided = np.isfinite(outcomes) & (outcomes != 0.5)
    if not decided.any():
        return None
    kept = [group for group, counted in zip(groups, decided, strict=True) if counted]
    return mean_interval(outcomes[decided], groups=kept, generator=generator, options=options)
