"""A latent reward model that a stage trained, as a scorer of clean pictures and clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import Field

from actors.media import decode
from infra.dag.stage import Places
from pipelines.models.families.base import Family
from pipelines.models.rewards.clean import CleanScores
from pipelines.models.rewards.reward import RewardModel
from pipelines.models.scorers.scorer import OpenScorer, Sample, Scorer
from pipelines.models.weights import Weights


class TrainedReward(Scorer):
    """Encodes a sample, noises it to one time and scores it; the mean over some fixed noises is the score."""

    convention: ClassVar = "logit of the trained reward model; only differences within a prompt have a meaning"

    name: str = "reward"
    weights: Weights
    """What stage `reward` wrote: `Made(stage=...)`, or a folder."""
    model: RewardModel
    """The reward model that was trained."""
    backbone: Family
    """The generator that it was trained on."""
    t: float = Field(0.05, ge=0, lt=1)
    """Time that clean latents are noised to; 0 leaves them clean."""
    noises: int = Field(4, ge=1)
    """Noises that a score is the mean over; they are fixed by the prompt. One is enough at t = 0."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        return self.model.dimensions

    def open(self, device: str, places: Places) -> OpenScorer:
        backbone, folder = self.backbone.placed(places), self.weights.folder(places)
        scores = CleanScores(self.model, folder, backbone=backbone, t=self.t, noises=self.noises, device=device)
        return OpenTrainedReward(scores, dimensions=len(self.dimensions))


class OpenTrainedReward:
    """A trained reward model on a device; a file that cannot be read has the score NaN."""

    def __init__(self, scores: CleanScores, *, dimensions: int) -> None:
        self.scores, self.dimensions = scores, dimensions

    def score(self, samples: Sequence[Sample]) -> Float[np.ndarray, "samples dimensions"]:
        found = np.full((len(samples), self.dimensions), np.nan)
        for number, sample in enumerate(samples):
            try:
                pixels = decode(sample.media, clip=sample.medium == "video")
            except (OSError, ValueError):  # what Pillow and PyAV raise for a file that they cannot read
                continue
            found[number] = self.scores.score([pixels], [sample.prompt])[0]
        return found
