"""Wan 2.1 image-to-video: Wan 2.1's transformer, given the first frame as latents and through CLIP (Wan team, 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.models.families.base import Condition
from pipelines.models.families.loaded import DenoiserCall, LoadedFamily
from pipelines.models.families.pixels import to_pixels
from pipelines.models.families.wan import LoadedWan, Wan
from pipelines.models.weights import INDEX

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")

MASKS = 4  # channels that say of which frames the latents are given: one for each frame of a latent frame


class WanFromFrame(Wan):
    """Text and first frame to clip. Rectified flow, told 1000 t; flow_shift is 3 for 480p and 5 for 720p."""

    name: ClassVar = "wan-i2v"
    pipeline_class: ClassVar = "WanImageToVideoPipeline"
    picture_parts: ClassVar = ("image_encoder", "image_processor")
    reads_first_frame: ClassVar = True

    def refuse(self, index: dict[str, Any]) -> None:
        """Wan 2.2 splits the path between two transformers, or gives each token its own time."""
        super().refuse(index)
        if (index.get("image_encoder") or [None])[0] is None:
            raise ConfigError(f"{self.folder / INDEX} has no image encoder, so it is not of Wan 2.1 image-to-video")

    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedFamily:
        return LoadedWanFromFrame(self, pipeline=pipeline, dtype=dtype)


class LoadedWanFromFrame(LoadedWan):
    """Condition: `tokens` of Wan 2.1, and of the first frame `first` and `picture`.

    `first` float[16, f', h/8, w/8] is the latent of a clip that is grey after its first frame; `picture` float[257, 1280]
    the last but one layer's states of CLIP.
    """

    def encode_first(self, pixels: torch.Tensor) -> Condition:
        from PIL import Image as Pillow

        grey = torch.zeros_like(pixels)
        grey[:, :, :1] = pixels[:, :, :1]
        frames = [Pillow.fromarray(frame[0]) for frame in to_pixels(pixels[:, :, :1])]
        return {"first": self.encode_frames(grey), "picture": self.pipeline.encode_image(frames)}

    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        x, read = self.inputs(call)
        given = torch.zeros_like(x[:, :1]).repeat(1, MASKS, 1, 1, 1)
        given[:, :, 0] = 1
        return model(
            hidden_states=torch.cat([x, given, read["first"]], dim=1),
            timestep=call.timesteps,
            encoder_hidden_states=read["tokens"],
            encoder_hidden_states_image=read["picture"],
            return_dict=False,
        )[0]
