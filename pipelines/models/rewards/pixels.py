"""A pixel-space baseline of latent reward models: a small convolutional network on decoded pictures.

Trained on clean pictures (times from 0 to 0) and asked about noised ones, it is what the noise-aware models are compared
with: such models fall towards an even chance as noise grows. It sees the decoded x_t, or the picture that the generator
predicts from x_t in one step. A published scorer takes its place in `scored_pixels`, where no gradient is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.models.families.base import Family
from pipelines.models.rewards.depth import denoiser_config
from pipelines.models.rewards.drm import Channels
from pipelines.models.rewards.reward import RewardModel, Shown

if TYPE_CHECKING:
    import torch

    from pipelines.models.rewards.pixels_network import PixelNetwork
else:
    torch = lazy("torch")

TEXT_WIDTHS = ("caption_channels", "joint_attention_dim", "text_dim", "cross_attention_dim")
"""Settings of denoisers that say how wide the tokens of a text are, in the order in which they are looked for."""


class PixelReward(RewardModel):
    """For every generator whose denoiser reads a text as tokens of one width."""

    kind: Literal["pixels"] = "pixels"
    shown: Shown = "x_0"
    """What is decoded: "x_t", the noised latents, or "x_0", the clean ones that the generator predicts from them."""
    channels: Channels = (64, 128, 256)
    """Channels after each convolution, multiples of 32. Each halves the picture's sides."""

    def refuse(self, backbone: Family) -> None:
        if backbone.reads_first_frame and self.shown == "x_0":
            raise ConfigError(f"{backbone.name} predicts from a first frame, too; give shown = 'x_t'")
        config = denoiser_config(backbone)
        if config is not None and _text_width(config) is None:
            raise ConfigError(
                f"the pixel baseline does not know how wide the texts of {backbone.name} are; choose a generator of SD1.5, "
                "SDXL, SD3, FLUX.1, Qwen-Image or Wan"
            )

    def build(self, backbone: Family, *, device: torch.device | str) -> PixelNetwork:
        from pipelines.models.rewards.pictures import NoisedPictures
        from pipelines.models.rewards.pixels_network import PixelNetwork

        placed = backbone.at(backbone.folder)  # so that its config can be read
        self.refuse(placed)
        text = _text_width(denoiser_config(placed) or {})
        if text is None:
            raise ConfigError(f"{placed.folder} has no {placed.part}/config.json; save the pipeline with save_pretrained")
        pictures = NoisedPictures(backbone, shown=self.shown, device=device)
        network = PixelNetwork(pictures, channels=self.channels, text=text, dimensions=len(self.dimensions))
        return network.to(device)


def _text_width(config: dict[str, Any]) -> int | None:
    return next((config[name] for name in TEXT_WIDTHS if isinstance(config.get(name), int)), None)
