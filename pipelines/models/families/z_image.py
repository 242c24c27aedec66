"""Z-Image: one stream of picture and text through a transformer that predicts velocities (Tongyi-MAI, 2025)."""

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


class ZImage(Family):
    """Rectified flow whose denoiser is told 1 - t and answers the velocity to the data; guidance 0 reads the text alone."""

    name: ClassVar = "z-image"
    pipeline_class: ClassVar = "ZImagePipeline"
    part: ClassVar = "transformer"
    text_parts: ClassVar = ("tokenizer", "text_encoder")
    lora_targets: ClassVar = ("to_q", "to_k", "to_v", "to_out.0")
    size_multiple: ClassVar = 16

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedPictures:
        return LoadedZImage(self, pipeline=pipeline, dtype=dtype)


class LoadedZImage(LoadedPictures):
    """Condition: `tokens` float[length, 2560], the last but one layer's states of Qwen3, without padding."""

    unguided: ClassVar = 0.0

    def encode_text(self, text: str) -> Condition:
        (tokens,), _ = self.pipeline.encode_prompt([text], do_classifier_free_guidance=False)
        return {"tokens": tokens[None]}

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        """The denoiser takes lists: a text's length moves its picture's positions, so padding must not reach it."""
        x, read = self.inputs(call)
        tokens = list(read["tokens"])
        if (mask := call.condition.get("mask")) is not None:
            tokens = [one[:length] for one, length in zip(tokens, mask.bool().sum(dim=1).tolist(), strict=True)]
        answer = model(list(x.unsqueeze(2)), (1000 - call.timesteps) / 1000, tokens, return_dict=False)[0]
        return -torch.stack(list(answer)).squeeze(2)

    def guided(self, conditioned: torch.Tensor, unconditioned: torch.Tensor, *, guidance: float) -> torch.Tensor:
        """From the conditioned answer on, so that a scale of 4 is what other families call 5."""
        return conditioned + guidance * (conditioned - unconditioned)

    def set_timesteps(self, scheduler: Any, *, steps: int, shape: Sequence[int], device: torch.device) -> None:
        set_shifted(scheduler, steps=steps, tokens=self.tokens(shape), device=device)
