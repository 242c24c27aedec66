"""Diversity of the samples of a prompt: the mean distance of a sample to its generator's other samples of that prompt.

The mean over the samples of a prompt is the mean distance of all its pairs, which papers report as LPIPS diversity. The
features are those of a CLIP: LPIPS itself needs a network whose weights torchvision alone publishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from infra.dag.stage import Places
from pipelines.models.scorers.clip import LoadedClip, OfClip
from pipelines.models.scorers.scorer import OpenScorer, Sample


class Diversity(OfClip):
    """How different a generator's samples of one prompt are; a tuned generator that has collapsed has little of it."""

    convention: ClassVar = "1 - cos to the other samples of prompt and generator, mean; clips: mean embedding of frames"
    of_group: ClassVar = True

    name: str = "diversity"

    def open(self, device: str, places: Places) -> OpenScorer:
        """Reads the weights."""
        return OpenDiversity(LoadedClip(self.weights.folder(places), self.options(device), tokenizer=None), self.frames)


class OpenDiversity:
    """The model in memory; NaN for a sample that cannot be read or that has no readable other beside it."""

    def __init__(self, clip: LoadedClip, frames: int) -> None:
        self.clip, self.frames = clip, frames

    def score(self, samples: Sequence[Sample]) -> Float[np.ndarray, "samples 1"]:
        files = {file: Sample(file, sample.medium, "") for sample in samples for file in (sample.media, *sample.others)}
        embeddings = self.clip.mean_embeddings(list(files.values()), frames=self.frames)
        places = {file: place for place, file in enumerate(files)}
        found = np.full((len(samples), 1), np.nan)
        for number, sample in enumerate(samples):
            others = embeddings[[places[file] for file in sample.others]]
            distances = 1 - others @ embeddings[places[sample.media]]
            if np.isfinite(distances).any():
                found[number] = np.nanmean(distances)
        return found
