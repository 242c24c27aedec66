"""HPSv2.1 (Wu et al., 2023): a CLIP-H tuned on the preferences of HPDv2."""

from __future__ import annotations

from typing import ClassVar

from pipelines.models.scorers.clip import ClipSimilarity


class HPSv2(ClipSimilarity):
    """The cosine as the published script returns it (about .25 to .30); papers often report 100 times it.

    Weights: HPS_v2.1_compressed.pt of xswu/HPSv2, converted by `python -m pipelines.models.scorers.convert hpsv2`. The
    whole picture is shown, between black bars, as in the published script.
    """

    convention: ClassVar = "cos; clips: mean of frames"
    whole: ClassVar = True

    name: str = "hpsv2.1"

    def of_cosine(self, cosine: float, *, scale: float) -> float:
        return cosine
