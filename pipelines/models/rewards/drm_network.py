"""The network of the diffusion reward model: a shortened denoiser, and convolutions on the map that it puts out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import nn

from pipelines.models.families.base import Condition
from pipelines.models.families.loaded import DenoiserCall, LoadedFamily
from pipelines.models.rewards.network import RewardNetwork
from pipelines.models.rewards.transformer import blocks_of, cut
from pipelines.models.rewards.unet import drop_up_blocks

GROUPS = 32  # of GroupNorm


class DRMNetwork(RewardNetwork):
    """x_t, its condition and its time in; scores out. The head has dropout: `eval()` before scores are used."""

    def __init__(
        self, generator: LoadedFamily, *, dropped: int, channels: Sequence[int], dropout: float, dimensions: int
    ) -> None:
        super().__init__()
        self.generator = generator
        if generator.family.part == "unet":
            width = drop_up_blocks(generator, dropped=dropped)
            self.denoiser = generator.model
        else:
            family = generator.family
            side = family.size_multiple
            width = family.latent_shape(frames=1, height=side, width=side)[0]
            self.denoiser = cut(generator, kept=len(blocks_of(generator)) - dropped)
        self.convolutions = convolutions(width, channels)
        last = channels[-1]
        self.head = nn.Sequential(nn.Linear(last, last), nn.ReLU(), nn.Dropout(dropout), nn.Linear(last, dimensions))

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
        call = DenoiserCall(x_t, self.generator.path.timesteps(t), condition)
        found = self.generator.denoise(self.denoiser, call)
        picture = found.mean(2) if found.dim() == 5 else found  # over the frames of a clip [b, c, f, h, w]
        return self.head(self.convolutions(picture).mean((-2, -1)))


def convolutions(width: int, channels: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions of stride 2, each with GroupNorm and ReLU, from `width` channels through `channels`."""
    layers: list[nn.Module] = []
    for before, after in zip((width, *channels[:-1]), channels, strict=True):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(GROUPS, after), nn.ReLU()]
    return nn.Sequential(*layers)
