"""Stable Diffusion XL: a U-Net that also reads a pooled text state and the sizes of the picture (Podell et al., 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from infra.lazy import lazy
from pipelines.models.families.base import SIZES, Condition, Family
from pipelines.models.families.loaded import DenoiserCall
from pipelines.models.families.picture_vae import LoadedPictures

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")


class SDXL(Family):
    """Noise or v prediction at an integer step."""

    name: ClassVar = "sdxl"
    pipeline_class: ClassVar = "StableDiffusionXLPipeline"
    part: ClassVar = "unet"
    text_parts: ClassVar = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
    lora_targets: ClassVar = ("to_q", "to_k", "to_v", "to_out.0")
    size_multiple: ClassVar = 8
    comfyui_names: ClassVar = "kohya"

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedPictures:
        return LoadedSDXL(self, pipeline=pipeline, dtype=dtype)


class LoadedSDXL(LoadedPictures):
    """Condition: `tokens` float[77, 2048], both encoders' last states but one side by side, and `pooled` float[1280]."""

    def encode_text(self, text: str) -> Condition:
        tokens, _, pooled, _ = self.pipeline.encode_prompt([text], do_classifier_free_guidance=False)
        return {"tokens": tokens, "pooled": pooled}

    def unconditional(self) -> Condition:
        """Zeros where the pipeline says so (`force_zeros_for_empty_prompt`), as in the published one."""
        empty = super().unconditional()
        if self.pipeline.config.force_zeros_for_empty_prompt:
            return {name: torch.zeros_like(value) for name, value in empty.items()}
        return empty

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        x, read = self.inputs(call)
        height, width = self.family.vae_factor * x.shape[-2], self.family.vae_factor * x.shape[-1]
        target = torch.tensor([height, width], device=x.device, dtype=x.dtype).expand(len(x), -1)
        whole = torch.cat([target, torch.zeros_like(target)], dim=1)  # of its own size and not cropped
        ids = torch.cat([read.get(SIZES, whole), target], dim=1)
        added = {"text_embeds": read["pooled"], "time_ids": ids}
        tokens = read["tokens"]
        return model(x, call.timesteps, encoder_hidden_states=tokens, added_cond_kwargs=added, return_dict=False)[0]
