"""The noise-aware reward model of Flow-NRG (Liu et al., 2025): a few early layers of the generator, several dimensions.

The picture's tokens after the first blocks are averaged and an MLP makes a score per dimension of them. With the
Bradley-Terry loss under noise and time that both members of a pair share, its gradient guides sampling. How many layers "a
few" are is not published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.models.families.base import Family
from pipelines.models.rewards.depth import refuse_shallow
from pipelines.models.rewards.reward import RewardModel

if TYPE_CHECKING:
    import torch

    from pipelines.models.rewards.early_network import EarlyNetwork
else:
    torch = lazy("torch")


class EarlyLayers(RewardModel):
    """For the transformers of SD3, FLUX.1, Qwen-Image and Wan."""

    kind: Literal["early"] = "early"
    blocks: int = Field(6, ge=1)
    """Number of the transformer's first blocks that are kept."""

    def refuse(self, backbone: Family) -> None:
        if not backbone.block_lists:
            raise ConfigError(
                f"early layers are read from the tokens of a transformer, which {backbone.name} does not give; choose a "
                "generator of SD3, FLUX.1, Qwen-Image or Wan, or DRM or LRM for a U-Net"
            )
        refuse_shallow(backbone, wanted=self.blocks, what="the model of early layers", remedy="lower `blocks`")

    def build(self, backbone: Family, *, device: torch.device | str) -> EarlyNetwork:
        from pipelines.models.rewards.early_network import EarlyNetwork

        self.refuse(backbone)
        generator = backbone.load(parts="denoiser", device=device, dtype=torch.float32)
        return EarlyNetwork(generator, blocks=self.blocks, dimensions=len(self.dimensions)).to(device)
