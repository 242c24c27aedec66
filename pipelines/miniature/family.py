"""The miniature world's generators: pixels are their latents, so there is no VAE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from infra.config import ConfigError
from pipelines.miniature.world.draw import CELL, SIZE
from pipelines.models.families.base import Condition, Family
from pipelines.models.families.loaded import LoadedFamily

if TYPE_CHECKING:
    import torch
    from torch import nn


class Miniature(Family):
    """Rectified flow on 24x24 px, told 1000 t, with the noise schedule of Stable Diffusion 3."""

    name: ClassVar = "miniature"
    pipeline_class: ClassVar = "MiniaturePipeline"
    part: ClassVar = "transformer"
    text_parts: ClassVar = ("tokenizer", "text_encoder")
    lora_targets: ClassVar = (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    )  # fmt: skip
    size_multiple: ClassVar = SIZE
    has_vae: ClassVar = False

    def pipeline_type(self) -> Any:
        from pipelines.miniature.pipeline import MiniaturePipeline

        return MiniaturePipeline

    def latent_shape(self, folder: Path, *, frames: int, height: int, width: int) -> tuple[int, ...]:
        """The pixels themselves."""
        del folder, frames
        return (3, height, width)

    def wrap(self, pipeline: Any, *, folder: Path, dtype: torch.dtype) -> LoadedFamily:
        return LoadedMiniature(self, pipeline=pipeline, folder=folder, dtype=dtype)


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

    def denoise(
        self,
        model: nn.Module,
        x: torch.Tensor,
        *,
        timesteps: torch.Tensor,
        condition: Condition,
        original_size: tuple[int, int] | None,
        guidance: float,
    ) -> torch.Tensor:
        del original_size, guidance
        x, read = self.inputs(x, condition)
        return model(x, read["tokens"], read["pooled"], timesteps, return_dict=False)[0]

    def set_timesteps(self, scheduler: Any, *, steps: int, shape: Sequence[int], device: torch.device) -> None:
        del shape
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), device=device)

    def vae_identity(self) -> dict[str, str]:
        return {"class": "pixels"}
