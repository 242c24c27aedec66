"""PickScore (Kirstain et al., 2023): a CLIP-H tuned on what users of Pick-a-Pic preferred."""

from __future__ import annotations

from typing import ClassVar

from pipelines.models.scorers.clip import ClipSimilarity


class PickScore(ClipSimilarity):
    """Log-odds, up to a constant of the prompt, that a user prefers a picture: the model's logit scale times cos.

    Weights: yuvalkirstain/PickScore_v1. Papers report it as it is here (about 20 to 22) or divided by 100.
    """

    convention: ClassVar = "logit scale (about 100) x cos; clips: mean of frames"

    name: str = "pickscore"

    def of_cosine(self, cosine: float, *, scale: float) -> float:
        return scale * cosine
