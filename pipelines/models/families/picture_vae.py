"""The VAE of a picture generator: scaled and shifted latents.

Pipelines decode from z / scaling_factor + shift_factor (SD3 and FLUX; SD 1.5 and SDXL have no shift), or, where the config
has statistics, from z std / scaling_factor + mean (some VAEs of SDXL); encoding is the inverse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.lazy import lazy
from pipelines.models.families.loaded import LoadedFamily

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class LoadedPictures(LoadedFamily):
    """A loaded generator of pictures on the latents of an AutoencoderKL, [c, h/8, w/8]."""

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        mean, scale = _affine(vae)
        z = vae.encode(frames[:, :, 0].to(vae.device, vae.dtype)).latent_dist.mode()
        return (z.float() - mean) * scale

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        mean, scale = _affine(vae)
        z = latents.to(vae.device).float() / scale + mean
        return vae.decode(z.to(vae.dtype), return_dict=False)[0].unsqueeze(2)


def _affine(vae: Any) -> tuple[Any, Any]:
    """(mean, scale) such that scaled latents are (z - mean) scale."""
    config = vae.config
    if config.latents_mean is None or config.latents_std is None:
        return config.shift_factor or 0.0, config.scaling_factor
    mean, std = (
        torch.tensor(each, device=vae.device).view(1, -1, 1, 1) for each in (config.latents_mean, config.latents_std)
    )
    return mean, config.scaling_factor / std
