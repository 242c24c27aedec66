"""The latent reward model (LRM; Zhang et al., 2025): features of the denoiser against the text, as CLIP compares them.

The score is exp(2.6592) cos of a projection of the picture's features and a projection of the pooled text; the scale is
learnt from there on. PickScore's cross-entropy, with which it was trained, is the Bradley-Terry loss of this score.

On a U-Net (SD1.5, SDXL; published) the features are the means of every down block's and the middle block's output, 4800 of
SD1.5. The middle block's is guided: that of no text plus 7.5 times what the text changes in it (visual feature
enhancement). On SD3's transformer the features are read after each quarter of the blocks: the settings of LRM-3.5, the
baseline of the SLRM paper, are not published. SD1.5's text encoder comes without CLIP's text projection, so the projection
of the text is learnt from random values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.models.families.base import Family
from pipelines.models.rewards.depth import denoiser_config
from pipelines.models.rewards.reward import RewardModel

if TYPE_CHECKING:
    import torch

    from pipelines.models.rewards.lrm_network import LRMNetwork
else:
    torch = lazy("torch")


POOLED = "pooled_projection_dim"  # a setting of transformers that read a pooled text


class LRM(RewardModel):
    """For SD1.5, SDXL and SD3: their conditions have a pooled text."""

    kind: Literal["lrm"] = "lrm"
    width: int = Field(768, ge=1)
    """Number of values that picture and text are compared in."""
    guidance: float = Field(7.5, ge=1)
    """Scale by which the text's part in a U-Net's middle block is enlarged; 1 leaves it and saves half of the work. A
    transformer has no middle block and needs 1."""

    def refuse(self, backbone: Family) -> None:
        if len(self.dimensions) != 1:
            raise ConfigError(
                f"LRM compares picture and text in one score, and {len(self.dimensions)} dimensions are asked for; give "
                "one, or choose DRM or early layers"
            )
        unet, config = backbone.part == "unet", denoiser_config(backbone)
        if not (unet or backbone.joint_text) or (not unet and config is not None and POOLED not in config):
            raise ConfigError(
                f"LRM needs a pooled text beside a U-Net or SD3's transformer, and this is {backbone.name}; choose SD1.5, "
                "SDXL or SD3, or DRM or early layers"
            )
        if not unet and self.guidance != 1:
            raise ConfigError(f"LRM guides the middle block of a U-Net, which {backbone.name} has not; give guidance 1")

    def build(self, backbone: Family, *, device: torch.device | str) -> LRMNetwork:
        from pipelines.models.rewards.lrm_network import TransformerLRM, UNetLRM

        self.refuse(backbone)
        loaded = {"device": device, "dtype": torch.float32}
        generator = backbone.load(parts="denoiser", **loaded)
        if backbone.part != "unet":
            config: Any = generator.model.config
            return TransformerLRM(generator, text=config[POOLED], width=self.width).to(device)
        free = backbone.load(parts="encoders", **loaded).unconditional()  # CLIP's; they are not kept
        return UNetLRM(generator, width=self.width, guidance=self.guidance, unconditional=free).to(device)
