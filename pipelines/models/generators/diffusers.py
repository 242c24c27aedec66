"""Any text-to-picture or text-to-clip pipeline of diffusers as a generator, with or without a LoRA."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from actors.media import open_picture
from infra.config import ConfigError
from infra.dag.stage import Places
from infra.lazy import lazy
from infra.store.files import refuse_unsafe
from pipelines.models.generators.generator import Generator, Medium, Pixels, Request
from pipelines.models.weights import Weights

torch: Any = lazy("torch")


class Diffusers(Generator):
    """What `DiffusionPipeline.from_pretrained` loads, from safetensors and without remote code.

    An option that is None is left to the pipeline's own default.

        Diffusers(name="sd3.5", weights=Hub(repo="stabilityai/stable-diffusion-3.5-medium", revision="main"), steps=28)
    """

    weights: Weights
    """The pipeline: a folder, a repository of the Hub, or a stage that trains everything."""
    lora: Weights | None = None
    """A LoRA as `load_lora_weights` reads it: a folder, a repository, or a stage that trains one."""
    lora_scale: float = Field(1.0, allow_inf_nan=False)
    """How strongly the LoRA is added; 1 is as it was trained."""
    steps: int | None = Field(None, ge=1, le=1000)
    """Sampling steps."""
    guidance: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Scale of the guidance, as the pipeline's `guidance_scale` means it."""
    negative_prompt: str | None = None
    """What guidance leads away from."""
    height: int | None = Field(None, ge=8)
    """Pixels."""
    width: int | None = Field(None, ge=8)
    """Pixels."""
    frames: int | None = Field(None, ge=2)
    """Frames of a clip; None: the pipeline makes pictures."""
    frame_rate: float = Field(16.0, gt=0, le=240)
    """Frames per second that clips are played at; not used for pictures."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Precision of weights and activations."""

    @property
    def medium(self) -> Medium:
        return "image" if self.frames is None else "video"

    @property
    def fps(self) -> float | None:
        return None if self.frames is None else self.frame_rate

    def open(self, device: str, places: Places) -> OpenDiffusers:
        """The pipeline on a device; raises ConfigError for an option that its call does not take."""
        from diffusers import DiffusionPipeline

        folder = self.weights.folder(places)
        refuse_unsafe(folder)
        pipeline = DiffusionPipeline.from_pretrained(
            folder,
            torch_dtype=getattr(torch, self.dtype),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        if self.lora is not None:
            self._add_lora(pipeline, places)
        pipeline.set_progress_bar_config(disable=True)
        return OpenDiffusers(pipeline.to(device), self)

    def _add_lora(self, pipeline: Any, places: Places) -> None:
        assert self.lora is not None
        folder = self.lora.folder(places)
        refuse_unsafe(folder)
        pipeline.load_lora_weights(str(folder), adapter_name="lora", use_safetensors=True, local_files_only=True)
        if self.lora_scale != 1:
            pipeline.set_adapters(["lora"], [self.lora_scale])

    def call_options(self) -> dict[str, Any]:
        """Arguments of the pipeline's call that are set."""
        given = {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "negative_prompt": self.negative_prompt,
            "height": self.height,
            "width": self.width,
            "num_frames": self.frames,
        }
        return {name: value for name, value in given.items() if value is not None}


class OpenDiffusers:
    """A pipeline in memory; requests are sampled one by one, since the size of a batch changes the last bits."""

    def __init__(self, pipeline: Any, config: Diffusers) -> None:
        self.pipeline = pipeline
        self.config = config
        self.options = config.call_options()
        self.taken = set(inspect.signature(type(pipeline).__call__).parameters)
        if unknown := sorted(set(self.options) - self.taken):
            raise ConfigError(f"{config.name}: {type(pipeline).__name__} takes no {unknown[0]}; leave that option out")

    def sample(self, requests: Sequence[Request]) -> list[Pixels | Exception]:
        """See `OpenGenerator`: uint8[1, h, w, 3] or uint8[frames, h, w, 3], as the pipeline's own call gives them."""
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Pixels | Exception:
        options = dict(self.options)
        if request.first_frame is not None:
            if "image" not in self.taken:
                return ValueError(f"{type(self.pipeline).__name__} takes no first frame; use an image-to-video pipeline")
            options["image"] = opened_picture(request.first_frame)
        # Noise is drawn on the CPU, so that a seed means the same on every device.
        generator = torch.Generator("cpu").manual_seed(request.seed)
        try:
            output = self.pipeline(prompt=request.prompt, generator=generator, output_type="pil", **options)
        except ValueError as error:  # what the pipeline checks of one request; faults of the device are raised
            return error
        pictures = output.images if self.config.medium == "image" else output.frames[0]
        return np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])


def opened_picture(data: bytes) -> Any:
    """An encoded picture as PIL's RGB image."""
    with open_picture(data) as picture:
        return picture.convert("RGB")
