"""FLUX.2 [klein]: a transformer over normalised 2x2 squares of latents that predicts velocities (BFL, 2026)."""

from __future__ import annotations

import math
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

SQUARE = 2  # latents of the VAE per side of one that the denoiser reads
USUAL_STEPS = (
    50  # of sampling with the undistilled models, by the pipeline's own call: training times are shifted as theirs
)


class FLUX2Klein(Family):
    """Rectified flow, told t itself; the shift grows with the number of tokens and falls with the number of steps."""

    name: ClassVar = "flux2-klein"
    pipeline_class: ClassVar = "Flux2KleinPipeline"
    part: ClassVar = "transformer"
    text_parts: ClassVar = ("tokenizer", "text_encoder")
    lora_targets: ClassVar = ("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj")
    size_multiple: ClassVar = 16

    def latent_shape(self, *, frames: int, height: int, width: int) -> tuple[int, ...]:
        """Channels of a latent: four for each channel of the VAE, since height and width are halved."""
        channels, rows, columns = super().latent_shape(frames=frames, height=height, width=width)
        return (SQUARE**2 * channels, rows // SQUARE, columns // SQUARE)

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedFamily:
        return LoadedFLUX2Klein(self, pipeline=pipeline, dtype=dtype)


class LoadedFLUX2Klein(LoadedFamily):
    """Condition: `tokens` float[512, 3 width], three layers' states of Qwen3, padding included, for the denoiser reads it.

    Latents: [128, h/16, w/16], the 2x2 squares of the VAE's latents, normalised by its running statistics.
    """

    patch: ClassVar = 1

    @property
    def distilled(self) -> bool:
        """Whether it was distilled to a few steps, where the pipeline applies no guidance."""
        return bool(self.pipeline.config.is_distilled)

    def encode_text(self, text: str) -> Condition:
        return {"tokens": self.pipeline.encode_prompt([text])[0]}

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        mean, std = _statistics(vae)
        z = vae.encode(frames[:, :, 0].to(vae.device, vae.dtype)).latent_dist.mode()
        return (torch.nn.functional.pixel_unshuffle(z.float(), SQUARE) - mean) / std

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        mean, std = _statistics(vae)
        z = torch.nn.functional.pixel_shuffle(latents.to(vae.device).float() * std + mean, SQUARE)
        return vae.decode(z.to(vae.dtype), return_dict=False)[0].unsqueeze(2)

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        rows, columns = call.x.shape[-2:]
        x, read = self.inputs(call)
        answer = model(
            hidden_states=x.flatten(2).transpose(1, 2),
            timestep=call.timesteps / 1000,
            guidance=None,
            encoder_hidden_states=read["tokens"],
            txt_ids=positions(1, 1, read["tokens"].shape[1]).to(x.device),
            img_ids=positions(rows, columns, 1).to(x.device),
            return_dict=False,
        )[0]
        return answer.transpose(1, 2).unflatten(2, (rows, columns))

    def time_shift(self, latent_shape: Sequence[int]) -> float:
        """As in sampling with 50 steps."""
        return math.exp(empirical_mu(self.tokens(latent_shape), steps=USUAL_STEPS))

    def set_timesteps(self, scheduler: Any, *, steps: int, shape: Sequence[int], device: torch.device) -> None:
        mu = empirical_mu(self.tokens(shape), steps=steps)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), device=device, mu=mu)


def positions(rows: int, columns: int, depth: int) -> torch.Tensor:
    """[rows columns depth, 4]: of each token 0, its row, its column and its place in a text, for the rotary embedding."""
    return torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns), torch.arange(depth))


def empirical_mu(tokens: int, *, steps: int) -> float:
    """mu of the exponential shift, which Black Forest Labs fitted at 10 and at 200 steps: linear in tokens and in steps."""
    many = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return many
    few = 8.73809524e-05 * tokens + 1.89833333
    return many + (many - few) / 190 * (steps - 200)


def _statistics(vae: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Running mean and standard deviation of the squares of latents, [1, 4 c, 1, 1]."""
    mean, variance = vae.bn.running_mean.float(), vae.bn.running_var.float()
    return mean.view(1, -1, 1, 1), torch.sqrt(variance + vae.config.batch_norm_eps).view(1, -1, 1, 1)
