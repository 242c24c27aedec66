"""Bootstrap intervals of means and of paired differences (Efron & Tibshirani, 1993, percentile method).

Paired: base and tuned are measured on the same prompts with the same seeds, so their difference is resampled, not the
two apart. Where a prompt has several samples, prompts are resampled: samples of one prompt are not independent.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float
from pydantic import Field

from infra.config import Config, ConfigError
from pipelines.algorithms.metrics.interval import Interval

_CHUNK = 4_000_000
"""Draws held in memory at once."""


class Bootstrap(Config):
    """How an interval is made from resamples."""

    resamples: int = Field(10_000, ge=100)
    """Resamples; 10,000 keep the ends steady to about 1 % of the interval's width."""
    level: float = Field(0.95, gt=0, lt=1)
    """Confidence of the interval."""


def mean_interval(
    values: Float[np.ndarray, " n"],
    *,
    groups: Sequence[Hashable],
    generator: np.random.Generator,
    options: Bootstrap,
) -> Interval:
    """The mean of `values` with its interval; values of one group (a prompt) are resampled together."""
    values = np.asarray(values, dtype=np.float64)
    if len(groups) != len(values):
        raise ConfigError(f"{len(values)} values in {len(groups)} groups; give one group per value")
    if not len(values):
        raise ConfigError("an interval needs at least one value, got none; check the filter before it")
    if not np.isfinite(values).all():
        raise ConfigError(f"{int((~np.isfinite(values)).sum())} values are not finite; mask failed measures first")
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    codes = np.fromiter((number[group] for group in groups), dtype=np.int64, count=len(values))
    sums = np.bincount(codes, weights=values)
    sizes = np.bincount(codes).astype(np.float64)
    means = _resampled_means(sums, sizes=sizes, resamples=options.resamples, generator=generator)
    tail = (1 - options.level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(estimate=float(values.mean()), low=float(low), high=float(high), n=len(values))


def paired_difference(
    base: Float[np.ndarray, " n"],
    *,
    tuned: Float[np.ndarray, " n"],
    groups: Sequence[Hashable],
    generator: np.random.Generator,
    options: Bootstrap,
) -> Interval:
    """Mean of tuned - base with its interval; the i-th of each come from one prompt and one seed."""
    base, tuned = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    if base.shape != tuned.shape:
        raise ConfigError(f"{base.size} base values against {tuned.size} tuned; a paired difference needs both of each")
    return mean_interval(tuned - base, groups=groups, generator=generator, options=options)


def _resampled_means(sums: np.ndarray, *, sizes: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Means of `resamples` draws of groups with replacement."""
    count = len(sums)
    means = np.empty(resamples)
    rows = max(1, _CHUNK // count)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = generator.integers(count, size=(stop - start, count))
        means[start:stop] = sums[drawn].sum(1) / sizes[drawn].sum(1)
    return means
