"""Stable Diffusion 1.5 (and 2.x): a U-Net on VAE latents that reads the last states of one CLIP text encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.models.families.base import Condition, Family
from pipelines.models.families.loaded import DenoiserCall
from pipelines.models.families.picture_vae import LoadedPictures

if TYPE_CHECKING:
    import torch
    from torch import nn


class SD15(Family):
    """Noise or v prediction at an integer step; the time's distribution is the table of the scheduler."""

    name: ClassVar = "sd15"
    pipeline_class: ClassVar = "StableDiffusionPipeline"
    part: ClassVar = "unet"
    text_parts: ClassVar = ("tokenizer", "text_encoder")
    lora_targets: ClassVar = ("to_q", "to_k", "to_v", "to_out.0")
    size_multiple: ClassVar = 8
    comfyui_names: ClassVar = "kohya"

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedPictures:
        return LoadedSD15(self, pipeline=pipeline, dtype=dtype)


class LoadedSD15(LoadedPictures):
    """Condition: `tokens` float[77, 768], and `pooled` float[768], the state of the text's end, for reward models only."""

    def encode_text(self, text: str) -> Condition:
        pipeline = self.pipeline
        tokens, _ = pipeline.encode_prompt([text], pipeline.device, 1, do_classifier_free_guidance=False)
        ids = pipeline.tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids[0]
        end = (ids == pipeline.tokenizer.eos_token_id).nonzero()[0, 0]  # the first: texts are padded with the same token
        return {"tokens": tokens, "pooled": tokens[:, end].clone()}

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        x, read = self.inputs(call)
        return model(x, call.timesteps, encoder_hidden_states=read["tokens"], return_dict=False)[0]
