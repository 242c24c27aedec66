"""The standard normal's hazard pdf/cdf, stable in the far tail, in plain floats.

cdf underflows below -38, and x + pdf/cdf cancels long before. Below the switch both come from Laplace's continued
fraction 1 - cdf(z) = pdf(z) / (z + 1/(z + 2/(z + 3/(z + ...)))), in which nothing cancels.
"""

from __future__ import annotations

import math

ROOT_HALF = math.sqrt(0.5)
ROOT_TWO_OVER_PI = math.sqrt(2 / math.pi)
TAIL = -5.0
"""Where the continued fraction takes over; it then agrees with the direct form to 1e-13."""
_TERMS = 60


def hazard(x: float) -> float:
    """pdf(x) / cdf(x): the inverse Mills ratio; about -x far below 0, and 0 far above."""
    if x > TAIL:
        return ROOT_TWO_OVER_PI * math.exp(-0.5 * x * x) / math.erfc(-x * ROOT_HALF)
    return excess(x) - x


def excess(x: float) -> float:
    """x + pdf(x) / cdf(x): the mean of a unit normal around x, given that it is positive. Always above 0."""
    if x > TAIL:
        return x + hazard(x)
    z = -x
    fraction = z
    for term in range(_TERMS, 1, -1):
        fraction = z + term / fraction
    return 1 / fraction
