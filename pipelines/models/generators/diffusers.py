"""Any text-to-picture, text-to-clip or picture-to-clip pipeline of diffusers as a generator."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from actors.media import open_picture
from infra.config import ConfigError
from infra.dag.stage import Places
from infra.lazy import lazy
from pipelines.models.generators import setup
from pipelines.models.generators.encodings import EncodedOnce, of_one_length
from pipelines.models.generators.generator import Generator, Medium, Pixels, Request
from pipelines.models.generators.options import Attention, Offload, Scheduler, StepCache
from pipelines.models.weights import Hub, Weights

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
    """Number of sampling steps."""
    guidance: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Scale of the guidance, as the pipeline's `guidance_scale` means it: a distilled model (FLUX) is told of it."""
    true_cfg: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Scale of the guidance by a second pass with the negative prompt, where a pipeline has both (`true_cfg_scale`)."""
    negative_prompt: str | None = None
    """What guidance leads away from."""
    max_sequence_length: int | None = Field(None, ge=1)
    """Tokens of the prompt that are read."""
    height: int | None = Field(None, ge=8)
    """Pixels."""
    width: int | None = Field(None, ge=8)
    """Pixels."""
    frames: int | None = Field(None, ge=2)
    """Frames of a clip; None: the pipeline makes pictures."""
    frame_rate: float = Field(16.0, gt=0, le=240)
    """Frames per second that clips are played at, and that a pipeline that asks for it is told; not used for pictures."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Precision of weights and activations."""
    scheduler: Scheduler | None = None
    """Another sampler than the pipeline's own, or its own with other options."""
    attention: Attention = "native"
    """How attention is computed; each way has other last bits."""
    compiled: bool = False
    """Whether torch.compile compiles the denoiser, its repeated blocks where the model names them. The last bits change."""
    cache: StepCache | None = None
    """Reuse of what earlier steps computed: faster, and other pictures."""
    batch: int = Field(1, ge=1, le=256)
    """Requests that are sampled together. Every call has exactly so many rows, the last request repeated where there are
    fewer, since the size of a batch changes the last bits; so it is part of the identity, and a request gives the same
    picture alone and among others. Pipelines whose prompts are encoded in different lengths sample one by one, and so do
    requests with a first frame."""
    offload: Offload = Field("none", exclude=True)
    """What waits in the host's memory: nothing, models that are not in use, or single layers one by one (sequential) or
    ahead of their use (group). It changes no picture."""

    @model_validator(mode="after")
    def _possible(self) -> Diffusers:
        if self.cache is not None and self.batch > 1:
            raise ValueError("a cache decides for all rows of a batch together, so batch must be 1; leave one of them out")
        setup.refuse_other_pipelines(self.weights)
        return self

    @property
    def medium(self) -> Medium:
        return "image" if self.frames is None else "video"

    @property
    def fps(self) -> float | None:
        return None if self.frames is None else self.frame_rate

    @property
    def together(self) -> int:
        return self.batch

    def published(self) -> tuple[float, str] | None:
        """By the table of published rates, steps in proportion; None for settings that change the time in other ways."""
        other = self.compiled or self.cache is not None or self.offload != "none" or self.dtype != "bfloat16"
        if not isinstance(self.weights, Hub) or other or self.steps is None or self.frames is not None:
            return None
        from pipelines.models.rates import picture_rate

        found = picture_rate(self.weights.repo, height=self.height, width=self.width)
        if found is None:
            return None
        # A distilled model is told of `guidance`, and only true_cfg takes a second pass.
        scale = self.guidance if found.second_pass else self.true_cfg
        if ((scale or 0.0) > 1) != found.second_pass:
            return None
        return found.seconds * self.steps / found.steps, found.device

    def open(self, device: str, places: Places) -> OpenDiffusers:
        """The pipeline on a device; raises ConfigError for an option that it does not take, before weights are read."""
        folder = self.weights.folder(places)
        options = self.call_options(setup.pipeline_class(folder))
        pipeline = setup.load(folder, dtype=self.dtype)
        if self.scheduler is not None:
            setup.set_scheduler(pipeline, self.scheduler)
        if self.lora is not None:
            setup.add_lora(pipeline, self.lora.folder(places), scale=self.lora_scale)
        setup.set_attention(pipeline, self.attention)
        if self.cache is not None:
            setup.set_cache(pipeline, self.cache, steps=self.steps)
        pipeline = setup.place(pipeline, device, self.offload)
        if self.compiled:
            setup.compile_blocks(pipeline)
        return OpenDiffusers(pipeline, self, options)

    def call_options(self, kind: Any) -> dict[str, Any]:
        """Arguments of the call of a pipeline's class that are set; raises ConfigError for one that it does not take."""
        taken = set(inspect.signature(kind.__call__).parameters)
        given = {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "true_cfg_scale": self.true_cfg,
            "negative_prompt": self.negative_prompt,
            "max_sequence_length": self.max_sequence_length,
            "height": self.height,
            "width": self.width,
            "num_frames": self.frames,
        }
        options = {name: value for name, value in given.items() if value is not None}
        if unknown := sorted(set(options) - taken):
            raise ConfigError(f"{self.name}: {kind.__name__} takes no {unknown[0]}; leave that option out")
        if self.frames is not None and "frame_rate" in taken:
            options["frame_rate"] = self.frame_rate
        return options


class OpenDiffusers:
    """A pipeline in memory."""

    def __init__(self, pipeline: Any, config: Diffusers, options: dict[str, Any]) -> None:
        self.pipeline = pipeline
        self.config = config
        self.options = options
        self.taken = set(inspect.signature(type(pipeline).__call__).parameters)
        self.encoded: EncodedOnce | None = None
        """The pipeline's encodings of prompts; None where it has no method for them."""
        if callable(encode := getattr(pipeline, "encode_prompt", None)):
            self.encoded = pipeline.encode_prompt = EncodedOnce(encode)
        self.rows = config.batch
        """Rows per call of the pipeline."""
        if self.rows > 1 and (self.encoded is None or not of_one_length(self.encoded, device=self.device)):
            logging.getLogger(__name__).warning(
                "%s: %s encodes prompts in different lengths, so requests are sampled one by one",
                config.name,
                type(pipeline).__name__,
            )
            self.rows = 1

    @property
    def device(self) -> Any:
        """Where the pipeline computes, although its parts may be elsewhere."""
        return getattr(self.pipeline, "_execution_device", self.pipeline.device)

    def sample(self, requests: Sequence[Request]) -> list[Pixels | Exception]:
        """See `OpenGenerator`: uint8[1, h, w, 3] or uint8[frames, h, w, 3], as the pipeline's own call gives them."""
        found: dict[int, Pixels | Exception] = {}
        together = [place for place, one in enumerate(requests) if self.rows > 1 and one.first_frame is None]
        for start in range(0, len(together), self.rows):
            places = together[start : start + self.rows]
            found |= zip(places, self._batch([requests[place] for place in places]), strict=True)
        return [found[place] if place in found else self._one(one) for place, one in enumerate(requests)]

    def _batch(self, requests: Sequence[Request]) -> list[Pixels | Exception]:
        """Requests in one call of `rows` rows; where it is refused, each in a call of its own."""
        rows = [*requests, *[requests[-1]] * (self.rows - len(requests))]
        try:
            made = self._called([one.prompt for one in rows], [one.seed for one in rows], self.options)
        except ValueError as error:
            return [error] if len(requests) == 1 else [self._batch([one])[0] for one in requests]
        return list(made[: len(requests)])

    def _one(self, request: Request) -> Pixels | Exception:
        options = self.options
        if request.first_frame is not None:
            if self.config.medium != "video" or "image" not in self.taken:
                return ValueError(f"{type(self.pipeline).__name__} takes no first frame; use an image-to-video pipeline")
            try:
                options = options | {"image": opened_picture(request.first_frame)}
            except OSError as error:
                return ValueError(f"the first frame does not decode: {error}")
        try:
            return self._called(request.prompt, [request.seed], options)[0]
        except ValueError as error:  # what the pipeline checks of one request; faults of the device are raised
            return error

    def _called(self, prompt: str | list[str], seeds: Sequence[int], options: dict[str, Any]) -> list[Pixels]:
        """The pixels of one call of the pipeline, by row."""
        # Noise is drawn on the CPU, so that a seed means the same on every device.
        drawn = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        generator = drawn if isinstance(prompt, list) else drawn[0]
        output = self.pipeline(prompt=prompt, generator=generator, output_type="pil", **options)
        made = [[picture] for picture in output.images] if self.config.medium == "image" else output.frames
        return [np.stack([np.asarray(picture.convert("RGB")) for picture in row]) for row in made]


def opened_picture(data: bytes) -> Any:
    """An encoded picture as PIL's RGB image."""
    with open_picture(data) as picture:
        return picture.convert("RGB")
