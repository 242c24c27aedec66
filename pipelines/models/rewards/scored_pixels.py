"""Any scorer of files as a reward at every noise level: it is shown the decoded latents, without gradient.

How published pixel-space rewards (PickScore, HPS, ImageReward, a VLM's probability of "yes") come to their rows of the
by-timestep tables. A frozen juror is a scorer, too (`scorers.soft_alignment`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from actors.media import encode_mp4, encode_png
from infra.config import ConfigError
from pipelines.models.families.base import Condition
from pipelines.models.families.pixels import to_pixels
from pipelines.models.rewards.pictures import NoisedPictures
from pipelines.models.scorers.scorer import OpenScorer, Sample


@dataclass(frozen=True)
class ScoredPixels:
    """A `LatentReward` about pictures of known prompts: scorers read texts, which a condition no longer has."""

    pictures: NoisedPictures
    scorer: OpenScorer
    texts: Sequence[str]
    """The prompt of each latent of the batch."""

    @property
    def reads_target(self) -> bool:
        return False

    def __call__(
        self,
        x_t: Float[torch.Tensor, "batch *shape"],
        *,
        t: Float[torch.Tensor, " batch"],
        condition: Condition,
        target: Float[torch.Tensor, "batch *shape"] | None = None,
    ) -> Float[torch.Tensor, "batch dimensions"]:
        """Scores of latents at times t in [0, 1]; NaN where the scorer has none. ConfigError where a gradient is needed."""
        del target
        if torch.is_grad_enabled() and x_t.requires_grad:
            raise ConfigError(
                "a scorer reads files of pictures and has no gradient in the latents; train a reward model of kind pixels"
            )
        if len(x_t) != len(self.texts):
            raise ConfigError(f"{len(x_t)} latents but {len(self.texts)} texts; give each latent its prompt")
        with torch.no_grad():
            pixels = to_pixels(self.pictures.frames(x_t, t=t, condition=condition))
        fps = self.pictures.generator.family.frame_rate
        samples = [_sample(each, text, fps=fps) for each, text in zip(pixels, self.texts, strict=True)]
        return torch.from_numpy(np.asarray(self.scorer.score(samples))).to(x_t.device, torch.float32)


def _sample(pixels: np.ndarray, text: str, *, fps: float | None) -> Sample:
    if fps is None:
        return Sample(encode_png(pixels[0]).bytes, "image", text)
    return Sample(encode_mp4(pixels, fps=fps).bytes, "video", text)
