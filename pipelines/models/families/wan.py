"""Wan 2.1 text-to-video: a transformer over a clip's causal VAE latents that predicts velocities (Wan team, 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from infra.config import ConfigError
from pipelines.models.families.base import Condition, Family
from pipelines.models.families.loaded import DenoiserCall, LoadedFamily
from pipelines.models.families.normalised_vae import LoadedNormalised
from pipelines.models.weights import INDEX

if TYPE_CHECKING:
    import torch
    from torch import nn

TEXT_TOKENS = 512  # what the pipeline's own call asks for; `encode_prompt` alone would take 226


class Wan(Family):
    """Rectified flow, told 1000 t; the scheduler's flow_shift is 3 for 480p and 5 for 720p."""

    name: ClassVar = "wan"
    pipeline_class: ClassVar = "WanPipeline"
    part: ClassVar = "transformer"
    text_parts: ClassVar = ("tokenizer", "text_encoder")
    lora_targets: ClassVar = ("to_q", "to_k", "to_v", "to_out.0")
    size_multiple: ClassVar = 16
    frame_multiple: ClassVar = 4
    frame_rate: ClassVar = 16.0
    block_lists: ClassVar = ("blocks",)
    comfyui_names: ClassVar = "wan"

    def refuse(self, index: dict[str, Any]) -> None:
        """Wan 2.2 splits the path between two transformers, or gives each token its own time."""
        second = index.get("transformer_2") or [None]
        if second[0] is not None or index.get("boundary_ratio") is not None or index.get("expand_timesteps"):
            raise ConfigError(
                f"{self.folder / INDEX} is of Wan 2.2, expected Wan 2.1; only TI2V-5B of it is trained, as another model"
            )

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedFamily:
        return LoadedWan(self, pipeline=pipeline, dtype=dtype)


class LoadedWan(LoadedNormalised):
    """Condition: `tokens` float[512, 4096] of UMT5, zero after the text's end. Latents: [c, 1 + (f - 1) / 4, h/8, w/8]."""

    def encode_text(self, text: str) -> Condition:
        from diffusers import WanPipeline

        # The pipeline that takes a first frame has the same method, but fails where ftfy is not installed.
        return {"tokens": WanPipeline._get_t5_prompt_embeds(self.pipeline, [text], max_sequence_length=TEXT_TOKENS)}

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        x, read = self.inputs(call)
        return model(hidden_states=x, timestep=call.timesteps, encoder_hidden_states=read["tokens"], return_dict=False)[0]
