"""The miniature's exact checker as a scorer: what nothing was trained on, and what the evaluation believes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from actors.media import decode
from infra.dag.stage import Places
from pipelines.miniature.world.checker import check
from pipelines.miniature.world.grammar import Expectation
from pipelines.models.scorers.scorer import OpenScorer, Sample, Scorer


class Checker(Scorer):
    """Reads a picture's objects from its pixels and compares them with what its caption asks for; no model."""

    convention: ClassVar = "share in [0, 1]; strict is 0 or 1"

    name: str = "checker"

    @property
    def dimensions(self) -> tuple[str, ...]:
        """strict: exactly what was asked; partial: credit for its parts; quality: how cleanly it is drawn."""
        return ("strict", "partial", "quality")

    def open(self, device: str, places: Places) -> OpenScorer:
        """There is nothing to load."""
        return OpenChecker()


class OpenChecker:
    """The checker on encoded pictures."""

    def score(self, samples: Sequence[Sample]) -> Float[np.ndarray, "samples dimensions"]:
        """See `Checker.dimensions`; raises ValueError for a sample without an expectation."""
        rows = []
        for sample in samples:
            checked = check(decode(sample.media, clip=False)[0], Expectation.from_json(sample.expectation))
            rows.append([float(checked.strict), checked.partial, checked.quality])
        return np.array(rows, dtype=np.float64).reshape(len(samples), 3)
