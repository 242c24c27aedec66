"""The network of the noise-aware reward model on early layers: pooled tokens of a shortened transformer, and an MLP."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from pipelines.models.families.base import Condition
from pipelines.models.families.loaded import LoadedFamily
from pipelines.models.rewards.network import RewardNetwork
from pipelines.models.rewards.transformer import PictureStream, cut


class EarlyNetwork(RewardNetwork):
    """x_t, its condition and its time in; a score per dimension out."""

    def __init__(self, generator: LoadedFamily, *, blocks: int, dimensions: int) -> None:
        super().__init__()
        self.generator = generator
        self.denoiser = cut(generator, kept=blocks)
        self.stream = PictureStream(generator, after=(blocks - 1,))
        width = width_of(generator)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, dimensions))

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
        (tokens,) = self.stream.read(x_t, t=t, condition=condition)
        return self.head(tokens.mean(1))


def width_of(generator: LoadedFamily) -> int:
    """Width of a transformer's picture tokens."""
    config: Any = generator.model.config
    return config.num_attention_heads * config.attention_head_dim
