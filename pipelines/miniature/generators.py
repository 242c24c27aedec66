"""The miniature's roster: generators of clearly different strength, each a config that opens into a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from infra.dag.stage import Places
from infra.lazy import lazy
from infra.store.files import Folder
from pipelines.miniature.text import TextOptions
from pipelines.miniature.world.draw import SIZE
from pipelines.models.generators.generator import Generator, Medium, Pixels, Request
from pipelines.models.weights import Weights

if TYPE_CHECKING:
    import torch

    from pipelines.miniature.making.pretrain import Pretraining
    from pipelines.miniature.pipeline import MiniaturePipeline
else:
    torch = lazy("torch")

WEIGHTS = Path(__file__).parent / "weights"
ROSTER = ("early", "middle", "pixart", "late", "policy")  # weakest first
BATCH = 32
"""Pictures per forward pass, always: a picture's bytes must not depend on how many are asked for."""


class MiniatureGenerator(Generator):
    """A text-to-picture model of the miniature world and how it is sampled."""

    weights: Weights
    """A pipeline's folder as diffusers saves it (safetensors only), or a stage that trains one."""
    steps: int = Field(8, ge=1, le=1000)
    """Sampling steps."""
    guidance: float = Field(1.0, ge=0)
    """Classifier-free guidance; 1 reads the prompt alone."""
    lora: Weights | None = None
    """An adapter on the weights, or a stage that trains one."""

    @property
    def medium(self) -> Medium:
        return "image"

    def open(self, device: str, places: Places) -> OpenMiniature:
        """The model on a device, in single precision."""
        from pipelines.miniature.pipeline import load_pipeline

        lora = self.lora.folder(places) if self.lora else None
        return OpenMiniature(load_pipeline(self.weights.folder(places), lora=lora, device=device), self)

    def tuned(self, trained: Weights, *, adapter: Literal["lora", "full"], name: str = "") -> MiniatureGenerator:
        """This generator with what tuning trained: an adapter beside its weights, or weights in their place."""
        part = {"lora": "lora", "full": "weights"}[adapter]
        return self.model_copy(update={"name": name or f"{self.name}-tuned", part: trained})


class OpenMiniature:
    """A generator in memory."""

    def __init__(self, pipeline: MiniaturePipeline, config: MiniatureGenerator) -> None:
        self.pipeline = pipeline
        self.config = config

    def sample(self, requests: Sequence[Request]) -> list[Pixels | Exception]:
        """See `OpenGenerator`; a request with a first frame is refused."""
        refused = ValueError(f"{self.config.name} makes pictures of texts alone; give it no first frame")
        pictures = self.pictures(requests)
        return [
            refused if request.first_frame else picture[None] for request, picture in zip(requests, pictures, strict=True)
        ]

    def pictures(self, requests: Sequence[Request]) -> UInt8[np.ndarray, "requests 24 24 3"]:
        """One picture for each request's prompt and seed."""
        parts = [self._batch(requests[start : start + BATCH]) for start in range(0, len(requests), BATCH)]
        return np.concatenate(parts) if parts else np.empty((0, SIZE, SIZE, 3), np.uint8)

    def _batch(self, requests: Sequence[Request]) -> np.ndarray:
        # Filled up with empty prompts: kernels choose their order of summation by the size of a batch.
        filled = [*requests, *[Request("", 0)] * (BATCH - len(requests))]
        images = self.pipeline(
            [request.prompt for request in filled],
            num_inference_steps=self.config.steps,
            guidance_scale=self.config.guidance,
            generator=[torch.Generator().manual_seed(request.seed) for request in filled],
            output_type="np",
        ).images
        return np.asarray(images)[: len(requests)]


def shipped(*, guidance: float = 1.0, steps: int = 8) -> tuple[MiniatureGenerator, ...]:
    """The generators that come with Salon, weakest first; the last is the policy."""
    return tuple(
        MiniatureGenerator(name=name, weights=Folder(path=str(WEIGHTS / name)), guidance=guidance, steps=steps)
        for name in ROSTER
    )


def training() -> tuple[Pretraining, ...]:
    """The trainings that make the shipped generators from nothing."""
    from pipelines.miniature.making.pretrain import Pretraining, Snapshot

    pixart = Pretraining(
        architecture="pixart",
        layers=3,
        text=TextOptions(),
        steps=2400,
        horizon=2400,
        cool_down=600,
        seed=1,
        snapshots=(Snapshot(name="pixart", at=2400),),
    )
    return Pretraining(), pixart
