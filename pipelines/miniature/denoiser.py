"""The miniature's denoisers: diffusers transformers on pixels that predict x_0 inside and return the velocity.

With patches as large as a cell (8 px) a network that puts out the velocity itself does not learn; one that puts out
x_0 does. The velocity is exact: v = (x_t - x_0) / t.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from diffusers import ModelMixin, PixArtTransformer2DModel, SD3Transformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from pipelines.miniature.world.draw import CELL, GRID, SIZE

__all__ = ["MiniaturePixArt", "MiniatureSD3", "ModelMixin"]  # DiffusionPipeline.from_pretrained looks for the mixin here

Model = TypeVar("Model", "MiniatureSD3", "MiniaturePixArt")

SHORTEST_TIME = 0.01  # divisor's floor: the velocity is exact for t >= 0.01, so for up to 100 unshifted steps


class MiniatureSD3(SD3Transformer2DModel):
    """Stable Diffusion 3's joint transformer on the miniature's pixels."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        pooled_projections: torch.Tensor,
        timestep: torch.Tensor,
        return_dict: bool = True,
    ) -> tuple[torch.Tensor] | Transformer2DModelOutput:
        """The velocity float[b, 3, 24, 24] of x_t; `timestep` = 1000 t."""
        clean = super().forward(
            hidden_states=hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            timestep=timestep,  # pyright: ignore[reportArgumentType]
            return_dict=False,
        )[0]
        velocity = velocity_of(clean, hidden_states, timestep=timestep)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)


class MiniaturePixArt(PixArtTransformer2DModel):
    """PixArt's cross-attention transformer on the miniature's pixels; it reads the tokens, not the pooled state."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        pooled_projections: torch.Tensor,
        timestep: torch.Tensor,
        return_dict: bool = True,
    ) -> tuple[torch.Tensor] | Transformer2DModelOutput:
        """The velocity float[b, 3, 24, 24] of x_t; `timestep` = 1000 t."""
        del pooled_projections
        clean = super().forward(
            hidden_states=hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            timestep=timestep,  # pyright: ignore[reportArgumentType]
            added_cond_kwargs={},
            return_dict=False,
        )[0]
        velocity = velocity_of(clean, hidden_states, timestep=timestep)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)


def velocity_of(clean: torch.Tensor, noised: torch.Tensor, *, timestep: torch.Tensor) -> torch.Tensor:
    """v = (x_t - x_0) / t, for x_t = (1-t) x_0 + t x_1."""
    return (noised - clean) / (timestep / 1000).clamp(min=SHORTEST_TIME).view(-1, 1, 1, 1)


def clean_of(velocity: torch.Tensor, noised: torch.Tensor, *, timestep: torch.Tensor) -> torch.Tensor:
    """The network's x_0 back from the velocity it returned."""
    return noised - (timestep / 1000).clamp(min=SHORTEST_TIME).view(-1, 1, 1, 1) * velocity


def build_sd3(*, layers: int, heads: int, head_width: int, text_width: int, seed: int) -> MiniatureSD3:
    """A random MiniatureSD3 whose x_0 starts at zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MiniatureSD3(
            sample_size=SIZE,
            patch_size=CELL,
            in_channels=3,
            out_channels=3,
            num_layers=layers,
            num_attention_heads=heads,
            attention_head_dim=head_width,
            joint_attention_dim=text_width,
            caption_projection_dim=heads * head_width,
            pooled_projection_dim=text_width,
            pos_embed_max_size=GRID,
        )
    return _silenced(model)


def build_pixart(*, layers: int, heads: int, head_width: int, text_width: int, seed: int) -> MiniaturePixArt:
    """A random MiniaturePixArt whose x_0 starts at zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MiniaturePixArt(
            sample_size=SIZE,
            patch_size=CELL,
            in_channels=3,
            out_channels=3,
            num_layers=layers,
            num_attention_heads=heads,
            attention_head_dim=head_width,
            cross_attention_dim=heads * head_width,
            caption_channels=text_width,
            use_additional_conditions=False,
        )
    return _silenced(model)


def _silenced(model: Model) -> Model:
    torch.nn.init.zeros_(model.proj_out.weight)
    torch.nn.init.zeros_(model.proj_out.bias)
    return model
