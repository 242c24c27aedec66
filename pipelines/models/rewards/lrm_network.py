"""The networks of the latent reward model: pooled features of a denoiser against the pooled text, as CLIP compares them."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import nn

from pipelines.models.families.base import SIZES, Condition
from pipelines.models.families.loaded import LoadedFamily
from pipelines.models.rewards.early_network import width_of
from pipelines.models.rewards.network import RewardNetwork
from pipelines.models.rewards.transformer import PictureStream, blocks_of, cut
from pipelines.models.rewards.unet import DownAndMiddle

LOGIT_SCALE = 2.6592  # ln(1 / 0.07), where CLIP's training starts
UNCONDITIONAL = "unconditional_"  # begins the names of the buffers that hold the condition of no text


class LRMNetwork(RewardNetwork):
    """exp(scale) cos of a projection of the picture's features and a projection of the text."""

    def __init__(self, generator: LoadedFamily, *, features: int, text: int, width: int) -> None:
        super().__init__()
        self.generator = generator
        self.visual_projection = nn.Linear(features, width, bias=False)
        self.text_projection = nn.Linear(text, width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE))

    @abstractmethod
    def features(
        self, x_t: Float[torch.Tensor, "batch *shape"], *, t: Float[torch.Tensor, " batch"], condition: Condition
    ) -> Float[torch.Tensor, "batch features"]:
        """Means over the picture of what the denoiser holds at several depths, side by side."""

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
        visual = self.visual_projection(self.features(x_t, t=t, condition=condition))
        text = self.text_projection(condition["pooled"].to(visual))
        return self.logit_scale.exp() * nn.functional.cosine_similarity(visual, text).unsqueeze(1)


class UNetLRM(LRMNetwork):
    """Features after each down block and of the middle block, whose part that the text makes is enlarged."""

    def __init__(self, generator: LoadedFamily, *, width: int, guidance: float, unconditional: Condition) -> None:
        """`unconditional`: the unbatched condition of no text."""
        maps = DownAndMiddle(generator)
        text = unconditional["pooled"].shape[-1]
        super().__init__(generator, features=sum(maps.widths), text=text, width=width)
        self.denoiser = generator.model
        self.maps, self.guidance = maps, guidance
        for name, value in unconditional.items():
            self.register_buffer(f"{UNCONDITIONAL}{name}", value, persistent=False)

    def features(
        self, x_t: Float[torch.Tensor, "batch c h w"], *, t: Float[torch.Tensor, " batch"], condition: Condition
    ) -> Float[torch.Tensor, "batch features"]:
        """In one forward pass of twice the batch where the middle block's feature is guided."""
        if self.guidance == 1:
            return torch.cat(self.maps.read(x_t, t=t, condition=condition), dim=1)
        both = {name: torch.cat([value, self._free(name, value)]) for name, value in condition.items()}
        found = self.maps.read(torch.cat([x_t, x_t]), t=torch.cat([t, t]), condition=both)
        conditioned, free = zip(*(each.chunk(2) for each in found), strict=True)
        # Means over the picture are linear, so guiding them is guiding the map.
        middle = free[-1] + self.guidance * (conditioned[-1] - free[-1])
        return torch.cat([*conditioned[:-1], middle], dim=1)

    def _free(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name == SIZES:
            return value
        return self.get_buffer(f"{UNCONDITIONAL}{name}").to(value).expand_as(value)


class TransformerLRM(LRMNetwork):
    """The picture's stream after each quarter of the blocks, averaged over its tokens."""

    def __init__(self, generator: LoadedFamily, *, text: int, width: int) -> None:
        depth = len(blocks_of(generator))
        after = quarters(depth)
        super().__init__(generator, features=len(after) * width_of(generator), text=text, width=width)
        self.denoiser = cut(generator, kept=depth)
        self.stream = PictureStream(generator, after=after)

    def features(
        self, x_t: Float[torch.Tensor, "batch *shape"], *, t: Float[torch.Tensor, " batch"], condition: Condition
    ) -> Float[torch.Tensor, "batch features"]:
        return torch.cat([tokens.mean(1) for tokens in self.stream.read(x_t, t=t, condition=condition)], dim=1)


def quarters(depth: int) -> tuple[int, ...]:
    """Numbers of the blocks that end each quarter of `depth` blocks, counted from 0; fewer than four of fewer blocks.

    >>> quarters(24)
    (5, 11, 17, 23)
    """
    return tuple(sorted({max(0, depth * quarter // 4 - 1) for quarter in (1, 2, 3, 4)}))
