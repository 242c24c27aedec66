"""HunyuanVideo: a transformer over picture and text tokens that predicts velocities, guidance-distilled (Tencent, 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from infra.lazy import lazy
from pipelines.models.families.base import Condition, Family
from pipelines.models.families.loaded import DenoiserCall, LoadedFamily

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")


class HunyuanVideo(Family):
    """Rectified flow, told 1000 t and 1000 times the guidance; the scheduler's shift is 7."""

    name: ClassVar = "hunyuanvideo"
    pipeline_class: ClassVar = "HunyuanVideoPipeline"
    part: ClassVar = "transformer"
    text_parts: ClassVar = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
    lora_targets: ClassVar = ("to_q", "to_k", "to_v", "to_out.0")
    size_multiple: ClassVar = 16
    frame_multiple: ClassVar = 4
    frame_rate: ClassVar = 24.0
    comfyui_names: ClassVar = None  # its own code keeps query, key and value in one layer

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedFamily:
        return LoadedHunyuanVideo(self, pipeline=pipeline, dtype=dtype)


class LoadedHunyuanVideo(LoadedFamily):
    """Condition: `tokens` float[256, 4096] of Llama with `mask` [256], 1 for a text's own tokens, and `pooled` of CLIP.

    Latents: [16, 1 + (f - 1) / 4, h/8, w/8], scaled.
    """

    @property
    def distilled(self) -> bool:
        return True

    def encode_text(self, text: str) -> Condition:
        tokens, pooled, mask = self.pipeline.encode_prompt([text])
        return {"tokens": tokens, "mask": mask, "pooled": pooled}

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        z = vae.encode(frames.to(vae.device, vae.dtype)).latent_dist.mode()
        return z.float() * vae.config.scaling_factor

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        z = latents.to(vae.device).float() / vae.config.scaling_factor
        return vae.decode(z.to(vae.dtype), return_dict=False)[0]

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        inner: Any = self.model
        x, read = self.inputs(call)
        told = torch.full((len(x),), call.guidance, dtype=x.dtype, device=x.device) * 1000.0
        return model(
            hidden_states=x,
            timestep=call.timesteps,
            encoder_hidden_states=read["tokens"],
            encoder_attention_mask=read["mask"],
            pooled_projections=read["pooled"],
            guidance=told if inner.config.guidance_embeds else None,
            return_dict=False,
        )[0]

    def set_timesteps(self, scheduler: Any, *, steps: int, shape: Sequence[int], device: torch.device) -> None:
        del shape
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1], device=device)
