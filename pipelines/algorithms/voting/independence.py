"""Whether what a juror answers has anything to do with what people say: the likelihood-ratio test of independence.

G = 2 sum_ij n_ij log(n_ij / e_ij) over a table of truths by answers, e_ij the product of its margins over its total; under
independence it is chi-squared with (rows - 1)(columns - 1) degrees of freedom, empty rows and columns left out (Agresti,
Categorical Data Analysis, section 3.2).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def independence_p_value(tables: Float[np.ndarray, "strata rows columns"]) -> float:
    """Probability of a G as large, summed over strata, if answers did not depend on the truth; 1 for empty tables."""
    from scipy.special import gammaincc  # pyright: ignore[reportMissingTypeStubs]

    statistic, freedom = 0.0, 0
    for table in tables:
        filled = table[table.sum(1) > 0][:, table.sum(0) > 0]
        if min(filled.shape) < 2:
            continue
        expected = filled.sum(1, keepdims=True) * filled.sum(0, keepdims=True) / filled.sum()
        ratio = np.where(filled > 0, filled, 1) / np.where(filled > 0, expected, 1)
        statistic += 2 * float((filled * np.log(ratio)).sum())
        freedom += (filled.shape[0] - 1) * (filled.shape[1] - 1)
    return float(gammaincc(freedom / 2, statistic / 2)) if freedom else 1.0
