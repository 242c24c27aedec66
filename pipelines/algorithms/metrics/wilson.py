"""The score interval of a proportion (Wilson, 1927): stays inside [0, 1] and is honest at few observations."""

from __future__ import annotations

import math
from statistics import NormalDist

from infra.config import ConfigError
from pipelines.algorithms.metrics.interval import Interval


def wilson(successes: int, *, n: int, level: float = 0.95) -> Interval:
    """The proportion successes / n with its interval; 0 observations give nan within [0, 1]."""
    if not 0 <= successes <= n:
        raise ConfigError(f"{successes} successes in {n} trials; successes lie between 0 and n")
    if n == 0:
        return Interval(estimate=math.nan, low=0.0, high=1.0, n=0)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(estimate=share, low=low, high=high, n=n)
