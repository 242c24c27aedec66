"""Intervals of means over captions and training seeds together, two crossed random effects.

The half-widths of Student's t over seeds' means and over captions' means are added in quadrature (Zou and Donner, 2008:
each part keeps its own degrees of freedom, which few seeds make few). Each part holds the cells' own noise, so that it
counts twice: the interval is on the cautious side.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from infra.config import ConfigError
from pipelines.algorithms.metrics.interval import Interval


def crossed_interval(values: Float[np.ndarray, "seeds captions"], *, level: float = 0.95) -> Interval:
    """The mean of all cells and the interval around it; n counts the cells.

    With one seed only captions count: how far another seed would be is then not in the interval.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ConfigError(f"an interval needs values of seeds x captions, got shape {values.shape}; check the trials")
    if not np.isfinite(values).all():
        raise ConfigError(f"{int((~np.isfinite(values)).sum())} values are not finite; mask failed measures first")
    mean, half = float(values.mean()), 0.0
    for means in (values.mean(axis=1), values.mean(axis=0)):
        if len(means) > 1:
            half = math.hypot(half, _quantile(len(means) - 1, level) * means.std(ddof=1) / math.sqrt(len(means)))
    return Interval(estimate=mean, low=mean - half, high=mean + half, n=values.size)


def _quantile(freedom: int, level: float) -> float:
    """Student's t that so many degrees of freedom stay below in size, a share `level` of the time."""
    from scipy.special import stdtrit  # pyright: ignore[reportMissingTypeStubs]

    return float(stdtrit(freedom, 0.5 + level / 2))
