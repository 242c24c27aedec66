"""Diversity of the samples of one prompt: the mean distance of all pairs of them.

With LPIPS as the distance this is what papers report; distances of any features will do.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def mean_pairwise_distance(distances: Float[np.ndarray, "samples samples"]) -> float:
    """Mean over the pairs of one prompt; unknown distances (NaN) are left out, and NaN is the mean of none.

    `distances`: symmetric; its diagonal is not read.
    """
    pairs = distances[np.triu_indices(len(distances), k=1)]
    known = pairs[np.isfinite(pairs)]
    return float(known.mean()) if len(known) else float("nan")


def pixel_distances(pictures: Float[np.ndarray, "samples *shape"]) -> Float[np.ndarray, "samples samples"]:
    """Root mean square difference of each two pictures, in the unit of their levels."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float64)
    return np.sqrt(np.square(flat[:, None] - flat[None]).mean(2))


def mean_diversity(groups: list[Float[np.ndarray, "samples samples"]]) -> float:
    """Mean over prompts of their mean pairwise distance; prompts without a known pair are left out."""
    means = np.array([mean_pairwise_distance(group) for group in groups])
    known = means[np.isfinite(means)]
    return float(known.mean()) if len(known) else float("nan")
