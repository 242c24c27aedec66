"""CLIP score (Hessel et al., 2021) on the scale of torchmetrics: 100 cos, and 0 where the cosine is negative."""

from __future__ import annotations

from typing import ClassVar

from pipelines.models.scorers.clip import ClipSimilarity


class ClipScore(ClipSimilarity):
    """How well a picture fits its prompt, by a CLIP that nobody tuned on preferences.

    Hessel et al. multiply by 2.5 and not by 100. Published with openai/clip-vit-large-patch14 or -base-patch32: scores
    of two models do not compare.
    """

    convention: ClassVar = "100 cos, at least 0; clips: mean of frames"

    name: str = "clip"

    def of_cosine(self, cosine: float, *, scale: float) -> float:
        return 100 * max(cosine, 0.0)
