"""Stable Diffusion 3 and 3.5: a joint transformer over picture and text that predicts velocities (Esser et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.models.families.base import Condition, Family
from pipelines.models.families.loaded import DenoiserCall
from pipelines.models.families.picture_vae import LoadedPictures
from pipelines.models.families.schedule import resolution_mu

if TYPE_CHECKING:
    import torch
    from torch import nn


class SD3(Family):
    """Rectified flow, told 1000 t; the scheduler's shift is 3 in the published pipelines."""

    name: ClassVar = "sd3"
    pipeline_class: ClassVar = "StableDiffusion3Pipeline"
    part: ClassVar = "transformer"
    text_parts: ClassVar = (
        "tokenizer", "tokenizer_2", "tokenizer_3", "text_encoder", "text_encoder_2", "text_encoder_3",
    )  # fmt: skip
    lora_targets: ClassVar = (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    )  # fmt: skip
    size_multiple: ClassVar = 16
    block_lists: ClassVar = ("transformer_blocks",)
    joint_text: ClassVar = True

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedPictures:
        return LoadedSD3(self, pipeline=pipeline, dtype=dtype)


class LoadedSD3(LoadedPictures):
    """Condition: `tokens` float[77 + 256, 4096], CLIP's states and then T5's, and `pooled` float[2048] of both CLIPs."""

    def encode_text(self, text: str) -> Condition:
        found = self.pipeline.encode_prompt([text], None, None, do_classifier_free_guidance=False)
        return {"tokens": found[0], "pooled": found[2]}

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        x, read = self.inputs(call)
        return model(
            hidden_states=x,
            encoder_hidden_states=read["tokens"],
            pooled_projections=read["pooled"],
            timestep=call.timesteps,
            return_dict=False,
        )[0]

    def set_timesteps(self, scheduler: Any, *, steps: int, shape: Sequence[int], device: torch.device) -> None:
        if not scheduler.config.use_dynamic_shifting:
            return super().set_timesteps(scheduler, steps=steps, shape=shape, device=device)
        mu = resolution_mu(scheduler.config, tokens=self.tokens(shape))
        return scheduler.set_timesteps(steps, device=device, mu=mu)
