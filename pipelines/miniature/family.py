"""The miniature world's generators: pixels are their latents, so there is no VAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from infra.config import ConfigError
from pipelines.miniature.world.draw import CELL, SIZE
from pipelines.models.families.base import Condition, Family
from pipelines.models.families.loaded import DenoiserCall, LoadedFamily
from pipelines.models.memory import Architecture, Kept, Operations

if TYPE_CHECKING:
    import torch
    from torch import nn


class MiniatureFamily(Family):
    """Rectified flow on 24x24 px, told 1000 t, with the noise schedule of Stable Diffusion 3."""

    name: ClassVar = "miniature"
    pipeline_class: ClassVar = "MiniaturePipeline"
    pipeline_module: ClassVar = "pipelines.miniature.pipeline"
    part: ClassVar = "transformer"
    text_parts: ClassVar = ("tokenizer", "text_encoder")
    lora_targets: ClassVar = (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    )  # fmt: skip
    size_multiple: ClassVar = SIZE
    joint_text: ClassVar = True
    block_lists: ClassVar = ("transformer_blocks",)
    has_vae: ClassVar = False

    def latent_shape(self, *, frames: int, height: int, width: int) -> tuple[int, ...]:
        """The pixels themselves."""
        return (3, height, width)

    def vae_identity(self) -> dict[str, str]:
        return {"class": "pixels"}

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedFamily:
        return LoadedMiniature(self, pipeline=pipeline, dtype=dtype)


class LoadedMiniature(LoadedFamily):
    """Condition: `tokens` float[14, hidden] and `pooled` float[hidden]. Latents: pixels float[3, 24, 24] in [-1, 1]."""

    patch: ClassVar = CELL

    def encode_text(self, text: str) -> Condition:
        found = self.pipeline.encode([text])
        return {"tokens": found.tokens, "pooled": found.pooled}

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        if frames.shape[-2:] != (SIZE, SIZE):
            raise ConfigError(f"the miniature's pictures are {SIZE}x{SIZE} px, got {list(frames.shape[-2:])}")
        return frames[:, :, 0]

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.unsqueeze(2)

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        x, read = self.inputs(call)
        return model(x, read["tokens"], read["pooled"], call.timesteps, return_dict=False)[0]

    def set_timesteps(self, scheduler: Any, *, steps: int, shape: Sequence[int], device: torch.device) -> None:
        del shape
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), device=device)


ARCHITECTURE = Architecture(
    family=MiniatureFamily,
    parameters=2_325_440,
    linear=2_285_568,
    operations=Operations(per_token=1.561e6, per_pair=0),
    layers={
        **dict.fromkeys(("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"), 1024),
        **dict.fromkeys(("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"), 1024),
        "attn.to_add_out": 768, "ff.net.0.proj": 2560, "ff.net.2": 2560,
        "ff_context.net.0.proj": 1920, "ff_context.net.2": 1920,
        "norm1.linear": 3584, "norm1_context.linear": 3072,
    },
    kept=Kept(full=10_481, lora=6_540, recomputed=3_641),
    patch=8,
    vae=1,
    text_tokens=14,
)  # fmt: skip
"""The size of the shipped policy."""
