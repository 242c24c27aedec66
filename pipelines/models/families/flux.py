"""FLUX.1: a transformer over tokens of 2x2 latents, guidance-distilled (dev) or not told of guidance (schnell)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from infra.lazy import lazy
from pipelines.models.families.base import Condition, Family
from pipelines.models.families.loaded import DenoiserCall
from pipelines.models.families.picture_vae import LoadedPictures
from pipelines.models.families.schedule import set_shifted

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")


class FLUX(Family):
    """Rectified flow, told t itself; the shift grows with the number of tokens."""

    name: ClassVar = "flux"
    pipeline_class: ClassVar = "FluxPipeline"
    part: ClassVar = "transformer"
    text_parts: ClassVar = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
    lora_targets: ClassVar = (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    )  # fmt: skip
    size_multiple: ClassVar = 16
    block_lists: ClassVar = ("transformer_blocks", "single_transformer_blocks")

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedPictures:
        return LoadedFLUX(self, pipeline=pipeline, dtype=dtype)


class LoadedFLUX(LoadedPictures):
    """Condition: `tokens` float[512, 4096] of T5 and `pooled` float[768] of CLIP."""

    @property
    def distilled(self) -> bool:
        return True

    def encode_text(self, text: str) -> Condition:
        tokens, pooled, _ = self.pipeline.encode_prompt([text])
        return {"tokens": tokens, "pooled": pooled}

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        inner: Any = self.model
        height, width = call.x.shape[-2:]
        x, read = self.inputs(call)
        told = torch.full((len(x),), call.guidance, device=x.device) if inner.config.guidance_embeds else None
        answer = model(
            hidden_states=pack(x),
            timestep=call.timesteps / 1000,
            guidance=told,
            pooled_projections=read["pooled"],
            encoder_hidden_states=read["tokens"],
            txt_ids=torch.zeros(read["tokens"].shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=positions(height // 2, width // 2).to(x),
            return_dict=False,
        )[0]
        return unpack(answer, height=height, width=width)

    def set_timesteps(self, scheduler: Any, *, steps: int, shape: Sequence[int], device: torch.device) -> None:
        set_shifted(scheduler, steps=steps, tokens=self.tokens(shape), device=device)


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Latents [b, c, h, w] as tokens [b, (h/2) (w/2), 4 c]: each the 2x2 square at its place, channels first."""
    batch, channels, height, width = latents.shape
    squares = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(batch, (height // 2) * (width // 2), 4 * channels)


def unpack(tokens: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    """What `pack` packed: [b, c, height, width] of tokens."""
    squares = tokens.reshape(len(tokens), height // 2, width // 2, tokens.shape[-1] // 4, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height, width)


def positions(rows: int, columns: int) -> torch.Tensor:
    """[rows columns, 3]: of each token 0, its row and its column, for the rotary embedding."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1)
