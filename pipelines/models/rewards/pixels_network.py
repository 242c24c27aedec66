"""The network of the pixel-space baseline: convolutions on decoded frames beside the text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import nn

from pipelines.models.families.base import Condition
from pipelines.models.rewards.drm_network import convolutions
from pipelines.models.rewards.network import RewardNetwork
from pipelines.models.rewards.pictures import NoisedPictures


class PixelNetwork(RewardNetwork):
    """Decodes x_t, or what the generator predicts from it, and scores the frames; it is told no time itself."""

    def __init__(self, pictures: NoisedPictures, *, channels: Sequence[int], text: int, dimensions: int) -> None:
        """`text`: width of the tokens of a condition. The frozen models of `pictures` are no part of the module."""
        super().__init__()
        self.pictures, self.generator = pictures, pictures.generator
        last = channels[-1]
        self.convolutions = convolutions(3, channels)
        self.text_projection = nn.Linear(text, last)
        self.head = nn.Sequential(nn.Linear(2 * last, last), nn.SiLU(), nn.Linear(last, dimensions))

    def forward(
        self,
        x_t: Float[torch.Tensor, "batch *shape"],
        *,
        t: Float[torch.Tensor, " batch"],
        condition: Condition,
        target: Float[torch.Tensor, "batch *shape"] | None = None,
    ) -> Float[torch.Tensor, "batch dimensions"]:
        """Scores of latents at times t in [0, 1], where 1 is noise; higher is better. `target` is not read."""
        del target
        frames = self.pictures.frames(x_t, t=t, condition=condition)
        maps = self.convolutions(frames.transpose(1, 2).flatten(0, 1))
        picture = maps.mean((-2, -1)).unflatten(0, (len(x_t), -1)).mean(1)
        text = self.text_projection(mean_of_tokens(condition).to(picture))
        return self.head(torch.cat([picture, text], dim=1))


def mean_of_tokens(condition: Condition) -> Float[torch.Tensor, "batch width"]:
    """The mean over a text's own tokens; over all where no mask tells them from padding."""
    tokens = condition["tokens"]
    if "mask" not in condition:
        return tokens.mean(1)
    own = condition["mask"].to(tokens)
    return (tokens * own.unsqueeze(-1)).sum(1) / own.sum(1, keepdim=True).clamp(min=1)
