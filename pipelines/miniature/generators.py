"""The miniature's roster: generators of clearly different strength, each a config that loads into a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from infra.config import Config
from infra.lazy import lazy
from infra.store.files import Folder
from pipelines.miniature.text import TextOptions

if TYPE_CHECKING:
    import torch

    from pipelines.miniature.making.pretrain import Pretraining
    from pipelines.miniature.pipeline import MiniaturePipeline
else:
    torch = lazy("torch")

WEIGHTS = Path(__file__).parent / "weights"
ROSTER = ("early", "middle", "pixart", "late", "policy")  # weakest first
BATCH = 32  # pictures a forward pass, always: a picture's bytes must not depend on how many are asked for


class Generator(Config):
    """A text-to-image model and how it is sampled."""

    name: str = Field(min_length=1)
    """Unique within a roster."""
    weights: Folder
    """A pipeline folder as diffusers saves it; safetensors only."""
    steps: int = Field(8, ge=1, le=1000)
    """Sampling steps."""
    guidance: float = Field(1.0, ge=0)
    """Classifier-free guidance; 1 reads the prompt alone."""
    lora: Folder | None = None
    """An adapter on the weights."""

    def load(self, device: str = "cpu") -> Sampler:
        """The model on a device, in single precision."""
        from pipelines.miniature.pipeline import load_pipeline

        lora = self.lora.local if self.lora else None
        return Sampler(load_pipeline(self.weights.local, lora=lora, device=device), self)

    def tuned(self, folder: Path, *, adapter: Literal["lora", "full"]) -> Generator:
        """This generator with what tuning wrote: an adapter beside its weights, or weights in their place."""
        trained = {"lora": {"lora": Folder(path=str(folder))}, "full": {"weights": Folder(path=str(folder))}}[adapter]
        return self.model_copy(update={"name": f"{self.name}-tuned", **trained})


class Sampler:
    """A loaded generator."""

    def __init__(self, pipeline: MiniaturePipeline, config: Generator) -> None:
        self.pipeline = pipeline
        self.config = config

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray]:
        """A picture uint8[24, 24, 3] a prompt; each depends on its own prompt and seed alone."""
        pictures: list[np.ndarray] = []
        for start in range(0, len(prompts), BATCH):
            texts, numbers = list(prompts[start : start + BATCH]), list(seeds[start : start + BATCH])
            missing = BATCH - len(texts)
            generators = [torch.Generator().manual_seed(seed) for seed in numbers + [0] * missing]
            out = self.pipeline(
                texts + [""] * missing,
                num_inference_steps=self.config.steps,
                guidance_scale=self.config.guidance,
                generator=generators,
                output_type="np",
            )
            pictures += [np.asarray(image) for image in out.images[: len(texts)]]
        return pictures


def shipped(*, guidance: float = 1.0, steps: int = 8) -> tuple[Generator, ...]:
    """The generators that come with Salon, weakest first; the last is the policy."""
    return tuple(
        Generator(name=name, weights=Folder(path=str(WEIGHTS / name)), guidance=guidance, steps=steps) for name in ROSTER
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
