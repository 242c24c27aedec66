"""One score for each picture from the margins of pairs: least squares in every connected set of comparisons.

The scores s minimise the sum over pairs of ((s_a - s_b) - margin)^2 and have mean 0 in each set of pictures that are
connected by comparisons (HodgeRank: Jiang et al., 2011). Differences between sets mean nothing.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def picture_scores(
    first: Int[np.ndarray, " pairs"],
    *,
    second: Int[np.ndarray, " pairs"],
    margin: Float[np.ndarray, " pairs"],
    pictures: int,
) -> Float[np.ndarray, " pictures"]:
    """The scores of pictures 0 to `pictures` - 1; `margin` is that of the first over the second. NaN without a pair."""
    scores = np.full(pictures, np.nan)
    parts = _connected(first, second, pictures)
    pairs_by_part, members = np.argsort(parts[first], kind="stable"), np.argsort(parts, kind="stable")
    starts = np.searchsorted(parts[members], np.arange(parts.max(initial=-1) + 2))
    edges = np.searchsorted(parts[first][pairs_by_part], np.arange(parts.max(initial=-1) + 2))
    for part in range(len(starts) - 1):
        inside = members[starts[part] : starts[part + 1]]
        mine = pairs_by_part[edges[part] : edges[part + 1]]
        if not len(mine):
            continue
        place = {picture: number for number, picture in enumerate(inside.tolist())}
        design = np.zeros((len(mine), len(inside)))
        rows = np.arange(len(mine))
        design[rows, [place[one] for one in first[mine].tolist()]] += 1
        design[rows, [place[one] for one in second[mine].tolist()]] -= 1
        # The solution of least norm has mean 0: the constant vector is what the design cannot tell.
        scores[inside] = np.linalg.lstsq(design, margin[mine], rcond=None)[0]
    return scores


def _connected(first: np.ndarray, second: np.ndarray, pictures: int) -> np.ndarray:
    """A number for the connected set of each picture: the lowest picture of the set, found by passing lower numbers on."""
    parts = np.arange(pictures)
    while True:
        before = parts.copy()
        lowest = np.minimum(parts[first], parts[second])
        np.minimum.at(parts, first, lowest)
        np.minimum.at(parts, second, lowest)
        parts = parts[parts]
        if np.array_equal(before, parts):
            return parts
