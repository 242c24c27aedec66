"""Wan 2.2 TI2V-5B: Wan 2.1's transformer over latents of 16 px, told the time of each token (Wan team, 2025).

From a text alone every token has the same time. From a text and a first frame, the frame's tokens are the data themselves
at time 0, and what the denoiser answers there is not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.models.families.base import Condition, Family
from pipelines.models.families.loaded import DenoiserCall, LoadedFamily
from pipelines.models.families.wan import LoadedWan
from pipelines.models.weights import INDEX

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")


class WanTI2V(Family):
    """Text to clip. Rectified flow, told 1000 t for each token; the scheduler's flow_shift is 5."""

    name: ClassVar = "wan2.2-ti2v"
    pipeline_class: ClassVar = "WanPipeline"
    part: ClassVar = "transformer"
    text_parts: ClassVar = ("tokenizer", "text_encoder")
    lora_targets: ClassVar = ("to_q", "to_k", "to_v", "to_out.0")
    vae_factor: ClassVar = 16
    size_multiple: ClassVar = 32
    frame_multiple: ClassVar = 4
    frame_rate: ClassVar = 24.0
    block_lists: ClassVar = ("blocks",)
    comfyui_names: ClassVar = "wan"

    def refuse(self, index: dict[str, Any]) -> None:
        """Wan 2.1 tells a time for each clip; the 14B models of Wan 2.2 divide the path between two transformers."""
        if not index.get("expand_timesteps"):
            raise ConfigError(
                f"{self.folder / INDEX} is not of Wan 2.2 TI2V-5B (expand_timesteps is not set); give its weights, or the "
                "family or model of Wan 2.1"
            )

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedFamily:
        return LoadedWanTI2V(self, pipeline=pipeline, dtype=dtype)


class WanTI2VFromFrame(WanTI2V):
    """Text and first frame to clip, with the weights of TI2V-5B as they are published or saved by the other pipeline."""

    name: ClassVar = "wan2.2-i2v"
    pipeline_class: ClassVar = "WanImageToVideoPipeline"
    other_classes: ClassVar = ("WanPipeline",)
    reads_first_frame: ClassVar = True

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedFamily:
        return LoadedWanTI2VFromFrame(self, pipeline=pipeline, dtype=dtype)


class LoadedWanTI2V(LoadedWan):
    """Condition: `tokens` float[512, 4096] of UMT5, zero after its end. Latents: [48, 1 + (f - 1) / 4, h/16, w/16]."""

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        x, read = self.inputs(call)
        times = self.times(call)
        return model(hidden_states=x, timestep=times, encoder_hidden_states=read["tokens"], return_dict=False)[0]

    def times(self, call: DenoiserCall) -> torch.Tensor:
        """The time of each token, float[b, tokens of the clip]."""
        frames = call.x.shape[-3]
        return call.timesteps[:, None].expand(-1, frames * self.tokens(call.x.shape))


class LoadedWanTI2VFromFrame(LoadedWanTI2V):
    """Condition: also `first` float[48, 1, h/16, w/16], the latent of the first frame."""

    def encode_first(self, pixels: torch.Tensor) -> Condition:
        return {"first": self.encode_frames(pixels[:, :, :1])}

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        """The first frame's velocity is the true one, (x_t - x_0) / t, since its data are known: it has no error."""
        x, read = self.inputs(call)
        shown = torch.cat([read["first"], x[:, :, 1:]], dim=2)
        times = self.times(call).clone()
        times[:, : self.tokens(x.shape)] = 0
        answer = model(hidden_states=shown, timestep=times, encoder_hidden_states=read["tokens"], return_dict=False)[0]
        t = (call.timesteps / 1000).clamp(min=1e-6).view(-1, 1, 1, 1, 1)
        known = (call.x[:, :, :1].float() - call.condition["first"].to(call.x.device).float()) / t
        return torch.cat([known.to(answer.dtype), answer[:, :, 1:]], dim=2)

    def finished(self, x: torch.Tensor, condition: Condition) -> torch.Tensor:
        """The first frame is the one that was given, as in the pipeline."""
        return torch.cat([condition["first"].to(x), x[:, :, 1:]], dim=2)
