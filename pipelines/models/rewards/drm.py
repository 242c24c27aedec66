"""The diffusion reward model (DRM): the generator without its last blocks, and a convolutional head on its output map.

The denoiser is run through its first blocks and its own output layer, which gives a map of the latent's shape, as published
for SD3.5; a clip's map is averaged over its frames. A U-Net without its last up blocks has no output layer of the right
width: the map of the last up block that is left takes its place. Everything but VAE and text encoders is trained. The
published settings: 3 blocks dropped of SD3.5-M (5 of SD3.5-L), both members of a pair under independent noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.models.families.base import Family
from pipelines.models.rewards.depth import denoiser_config, refuse_shallow
from pipelines.models.rewards.reward import RewardModel

if TYPE_CHECKING:
    import torch

    from pipelines.models.rewards.drm_network import DRMNetwork
else:
    torch = lazy("torch")


def _in_groups(channels: tuple[int, ...]) -> tuple[int, ...]:
    if wrong := [count for count in channels if count < 64 or count % 32]:
        raise ValueError(f"{wrong[0]} channels do not make 32 groups of at least 2; give multiples of 32 from 64 on")
    return channels


Channels = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_in_groups)]
"""Channels of convolutions that are normalised in 32 groups."""


class DRM(RewardModel):
    """For the transformers of SD3, FLUX.1, Qwen-Image and Wan, and for U-Nets."""

    kind: Literal["drm"] = "drm"
    dropped: int = Field(3, ge=0)
    """Number of blocks left out at the end: of a transformer's blocks, or of a U-Net's up blocks."""
    channels: Channels = (256, 512, 512)
    """Channels after each convolution of the head, multiples of 32. Each halves the map's sides."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the head's hidden values that training sets to zero; none are when the model scores."""

    def refuse(self, backbone: Family) -> None:
        if backbone.part == "unet":
            config = denoiser_config(backbone)
            ups = self.dropped if config is None else len(config["up_block_types"])
            if self.dropped > ups:
                raise ConfigError(f"DRM cannot drop {self.dropped} of {ups} up blocks; lower `dropped`")
        elif not backbone.block_lists:
            raise ConfigError(
                f"DRM has no way to shorten the denoiser of {backbone.name}; choose a generator of SD3, FLUX.1, "
                "Qwen-Image, Wan, SD1.5 or SDXL"
            )
        else:
            refuse_shallow(backbone, wanted=self.dropped + 1, what="DRM", remedy="lower `dropped`")

    def build(self, backbone: Family, *, device: torch.device | str) -> DRMNetwork:
        from pipelines.models.rewards.drm_network import DRMNetwork

        self.refuse(backbone)
        generator = backbone.load(parts="denoiser", device=device, dtype=torch.float32)
        network = DRMNetwork(
            generator,
            dropped=self.dropped,
            channels=self.channels,
            dropout=self.dropout,
            dimensions=len(self.dimensions),
        )
        return network.to(device)
