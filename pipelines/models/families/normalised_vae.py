"""A causal video VAE whose latents have a mean and a standard deviation of each channel in its config (Wan, Qwen-Image)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.lazy import lazy
from pipelines.models.families.loaded import LoadedFamily

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class LoadedNormalised(LoadedFamily):
    """A loaded generator on latents [c, f', h', w'] that are normalised channel by channel: (z - mean) / std."""

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        mean, std = _statistics(vae)
        z = vae.encode(frames.to(vae.device, vae.dtype)).latent_dist.mode()
        return (z.float() - mean) / std

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        mean, std = _statistics(vae)
        z = latents.to(vae.device).float() * std + mean
        return vae.decode(z.to(vae.dtype), return_dict=False)[0]


def _statistics(vae: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the VAE's latents, [1, c, 1, 1, 1]."""
    mean, std = (torch.tensor(each, device=vae.device) for each in (vae.config.latents_mean, vae.config.latents_std))
    return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)
