"""Qwen-Image: a joint transformer over picture and text that predicts velocities (Qwen team, 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from infra.lazy import lazy
from pipelines.models.families.base import Condition, Family
from pipelines.models.families.flux import pack, unpack
from pipelines.models.families.loaded import DenoiserCall, LoadedFamily
from pipelines.models.families.normalised_vae import LoadedNormalised
from pipelines.models.families.schedule import set_shifted

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")

TEXT_TOKENS = 512  # most tokens of a text, as the pipeline's own call asks for; `encode_prompt` alone would take 1024


class QwenImage(Family):
    """Rectified flow, told t itself; the shift grows with the number of tokens, and guidance keeps each token's norm."""

    name: ClassVar = "qwen-image"
    pipeline_class: ClassVar = "QwenImagePipeline"
    part: ClassVar = "transformer"
    text_parts: ClassVar = ("tokenizer", "text_encoder")
    lora_targets: ClassVar = ("to_q", "to_k", "to_v", "to_out.0")
    size_multiple: ClassVar = 16
    block_lists: ClassVar = ("transformer_blocks",)

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedFamily:
        return LoadedQwenImage(self, pipeline=pipeline, dtype=dtype)


class LoadedQwenImage(LoadedNormalised):
    """Condition: `tokens` float[length, 3584], the text encoder's states of the text alone. Latents: [16, h/8, w/8]."""

    def encode_text(self, text: str) -> Condition:
        tokens, _ = self.pipeline.encode_prompt([text], max_sequence_length=TEXT_TOKENS)
        return {"tokens": tokens}

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        return super().encode_frames(frames)[:, :, 0]

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        return super().decode_latents(latents.unsqueeze(2))

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        height, width = call.x.shape[-2:]
        x, read = self.inputs(call)
        answer = model(
            hidden_states=pack(x),
            timestep=call.timesteps / 1000,
            encoder_hidden_states=read["tokens"],
            encoder_hidden_states_mask=read.get("mask"),
            img_shapes=[[(1, height // 2, width // 2)]] * len(x),
            return_dict=False,
        )[0]
        return unpack(answer, height=height, width=width)

    def guided(self, conditioned: torch.Tensor, unconditioned: torch.Tensor, *, guidance: float) -> torch.Tensor:
        """Each token of the result gets the norm of the conditioned one."""
        height, width = conditioned.shape[-2:]
        usual = pack(super().guided(conditioned, unconditioned, guidance=guidance))
        scale = pack(conditioned).norm(dim=-1, keepdim=True) / usual.norm(dim=-1, keepdim=True)
        return unpack(usual * scale, height=height, width=width)

    def set_timesteps(self, scheduler: Any, *, steps: int, shape: Sequence[int], device: torch.device) -> None:
        set_shifted(scheduler, steps=steps, tokens=self.tokens(shape), device=device)
