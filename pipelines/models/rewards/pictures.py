"""Pictures of noised latents: decoded as they are, or after the generator has predicted the clean latents from them.

Both are differentiable in the latents. VAE and denoiser are the generator's own, frozen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float

from infra.lazy import lazy
from pipelines.models.families.base import Condition, Family
from pipelines.models.families.loaded import DenoiserCall
from pipelines.models.rewards.reward import Shown

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class NoisedPictures:
    """A generator's VAE, and its denoiser where that has to predict what is decoded."""

    def __init__(self, backbone: Family, *, shown: Shown, device: torch.device | str) -> None:
        loaded = {"device": device, "dtype": torch.float32}
        self.shown = shown
        self.decoder = backbone.load(parts="decoder", **loaded)
        self.generator = backbone.load(parts="denoiser", **loaded) if shown == "x_0" else self.decoder
        """Says how latents are noised."""

    def frames(
        self, x_t: Float[torch.Tensor, "batch *shape"], *, t: Float[torch.Tensor, " batch"], condition: Condition
    ) -> Float[torch.Tensor, "batch 3 frames height width"]:
        """Pixels in about [-1, 1] of latents at times t in [0, 1], where 1 is noise; a picture has one frame."""
        if self.shown == "x_t":
            return self.decoder.decode_latents(x_t).float()
        path = self.generator.path
        answer = self.generator.denoise(self.generator.model, DenoiserCall(x_t, path.timesteps(t), condition))
        return self.decoder.decode_latents(path.clean(answer.float(), x_t=x_t, t=t)).float()
