"""A diffusion transformer as the backbone of a reward model: cut after a number of blocks, its picture stream read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from pipelines.models.families.base import Condition
from pipelines.models.families.loaded import DenoiserCall, LoadedFamily

TEXT_ONLY = ("attn.add_q_proj", "attn.norm_added_q", "attn.to_add_out", "ff_context", "txt_mlp")
"""In a block of a joint transformer: what makes only the text stream that leaves it (queries, output, feed-forward)."""
LAST = ("norm_out", "proj_out", "scale_shift_table")
"""What makes a prediction out of the picture stream after the last block."""


def cut(generator: LoadedFamily, *, kept: int) -> nn.Module:
    """The denoiser with its first `kept` blocks only; all that is still read requires a gradient.

    The later blocks are taken out of the module, so that they are in no state dict and in no optimiser. The text stream
    that leaves the last block kept is read by nobody, and what makes it is frozen.
    """
    model: Any = generator.model
    left = kept
    for name in generator.family.block_lists:
        blocks = getattr(model, name)
        setattr(model, name, blocks[:left])
        left = max(0, left - len(blocks))
    model.requires_grad_(True)
    for name, parameter in blocks_of(generator)[-1].named_parameters():
        parameter.requires_grad_(not name.startswith(TEXT_ONLY))
    return model


def blocks_of(generator: LoadedFamily) -> list[nn.Module]:
    """The blocks of a transformer in the order in which they run."""
    return [block for name in generator.family.block_lists for block in getattr(generator.model, name)]


class PictureStream:
    """Reads the picture's tokens after chosen blocks during the denoiser's own forward pass, which stays as it is.

    The prediction that the pass ends in is not used; the layers that make it are frozen.
    """

    def __init__(self, generator: LoadedFamily, *, after: Sequence[int]) -> None:
        """`after`: numbers of the blocks, counted from 0."""
        self.generator = generator
        self.after = tuple(after)
        self._found: dict[int, torch.Tensor] | None = None
        for name, parameter in generator.model.named_parameters():
            if name.startswith(LAST):
                parameter.requires_grad_(False)
        blocks = blocks_of(generator)
        for number in self.after:
            blocks[number].register_forward_hook(self._keep(number))

    def read(
        self, x_t: Float[torch.Tensor, "batch *shape"], *, t: Float[torch.Tensor, " batch"], condition: Condition
    ) -> list[Float[torch.Tensor, "batch tokens width"]]:
        """The streams after the chosen blocks; t in [0, 1], where 1 is noise."""
        self._found = {}
        call = DenoiserCall(x_t, self.generator.path.timesteps(t), condition)
        self.generator.denoise(self.generator.model, call)
        found, self._found = self._found, None
        return [found[number] for number in self.after]

    def _keep(self, number: int) -> Any:
        def hook(module: nn.Module, inputs: Any, streams: Any) -> None:
            # Recomputed activations pass here a second time, in the backward pass, when nothing is read.
            if self._found is not None:
                self._found[number] = streams[1] if isinstance(streams, tuple) else streams

        return hook
