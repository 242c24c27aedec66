"""A U-Net as the backbone of a reward model: its up blocks are dropped, its down and middle blocks read."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from pipelines.models.families.base import Condition
from pipelines.models.families.loaded import DenoiserCall, LoadedFamily


def drop_up_blocks(generator: LoadedFamily, *, dropped: int) -> int:
    """Takes the last `dropped` up blocks and the output layers out of a U-Net; returns the width of the map it then gives.

    With none dropped the output layers stay. What is taken out is in no state dict; the rest requires a gradient.
    """
    unet: Any = generator.model
    unet.requires_grad_(True)
    if not dropped:
        return unet.config.out_channels
    kept = len(unet.up_blocks) - dropped
    unet.up_blocks = unet.up_blocks[:kept]
    # Their widths are those of the last up block, which is gone; the forward pass skips a norm that is None.
    unet.conv_norm_out, unet.conv_out = None, nn.Identity()
    widths = unet.config.block_out_channels
    return widths[-kept] if kept else widths[-1]


class DownAndMiddle:
    """Reads a U-Net without up blocks: the map after each down block, and the middle block's, which the pass ends in."""

    def __init__(self, generator: LoadedFamily) -> None:
        self.generator = generator
        drop_up_blocks(generator, dropped=len(generator.model.up_blocks))  # pyright: ignore[reportArgumentType]
        self._found: list[torch.Tensor] | None = None
        unet: Any = generator.model
        for block in unet.down_blocks:
            block.register_forward_hook(self._keep)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of what `read` gives."""
        unet: Any = self.generator.model
        return (*unet.config.block_out_channels, unet.config.block_out_channels[-1])

    def read(
        self, x_t: Float[torch.Tensor, "batch c h w"], *, t: Float[torch.Tensor, " batch"], condition: Condition
    ) -> list[Float[torch.Tensor, "batch width"]]:
        """The maps' means over the picture, down blocks first; t in [0, 1], where 1 is noise."""
        self._found = []
        call = DenoiserCall(x_t, self.generator.path.timesteps(t), condition)
        middle = self.generator.denoise(self.generator.model, call)
        found, self._found = self._found, None
        return [each.mean((-2, -1)) for each in (*found, middle)]

    def _keep(self, module: nn.Module, inputs: Any, given: tuple[torch.Tensor, Any]) -> None:
        if self._found is not None:
            self._found.append(given[0])
