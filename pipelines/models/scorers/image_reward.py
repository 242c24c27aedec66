"""ImageReward-v1.0 (Xu et al., 2023), in units of the standard deviation over its authors' test pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from actors.device import prepare
from actors.serving.engine import Precision
from infra.dag.stage import Places
from infra.lazy import lazy
from pipelines.algorithms.prompting.opinion import OVERALL
from pipelines.models.scorers.batches import equal_batches
from pipelines.models.scorers.frames import means, readable_frames
from pipelines.models.scorers.image_reward_network import load_network, raw_reward
from pipelines.models.scorers.pixels import middle_square
from pipelines.models.scorers.scorer import OpenScorer, Sample, Scorer
from pipelines.models.scorers.strict import load_tokenizer, refuse_pipeline
from pipelines.models.weights import Weights

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
"""Mean and standard deviation of the raw rewards, as published."""
TOKENS = 35
"""Length of a text; a longer one is cut, as published."""


class ImageReward(Scorer):
    """How well a picture pleases people as an answer to its prompt: a mean of 0 and a deviation of 1 are usual.

    Weights: ImageReward.pt of THUDM/ImageReward, converted by `python -m pipelines.models.scorers.convert imagereward`.
    """

    convention: ClassVar = "(reward - .16717) / 1.03334; clips: mean of frames"

    name: str = "imagereward"
    weights: Weights
    """A folder that the converter wrote."""
    tokenizer: Weights | None = None
    """Where the tokenizer of bert-base-uncased is, if not beside the weights."""
    frames: int = Field(8, ge=1)
    """Frames of a clip that are scored, evenly spaced; a clip's score is their mean."""
    batch_size: int = Field(16, ge=1)
    """Pictures in every forward pass. It is part of the identity: another number changes the last bits."""
    dtype: Precision = "float32"
    """Precision of weights and activations: float32 on every device, as the published numbers were computed."""

    @model_validator(mode="after")
    def _of_a_model(self) -> ImageReward:
        refuse_pipeline(self.weights, scorer=self.name)
        refuse_pipeline(self.tokenizer, scorer=self.name)
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """One."""
        return (OVERALL,)

    def open(self, device: str, places: Places) -> OpenScorer:
        """Reads the weights."""
        prepare(device)
        folder = self.weights.folder(places)
        network, config = load_network(folder, dtype=getattr(torch, self.dtype), device=device)
        tokenizer = load_tokenizer(folder if self.tokenizer is None else self.tokenizer.folder(places))
        return OpenImageReward(self, network, tokenizer=tokenizer, size=config.vision_config.image_size, device=device)


class OpenImageReward:
    """The model in memory; a file that cannot be read has the score NaN."""

    def __init__(self, options: ImageReward, network: Any, *, tokenizer: Any, size: int, device: str) -> None:
        self.options, self.network, self.tokenizer = options, network, tokenizer
        self.size, self.device = size, device

    def score(self, samples: Sequence[Sample]) -> Float[np.ndarray, "samples 1"]:
        total, count = np.zeros((len(samples), 1)), np.zeros(len(samples))
        shots = (
            (place, middle_square(frame, size=self.size))
            for place, frame in readable_frames(samples, most=self.options.frames)
        )
        for batch in equal_batches(shots, size=self.options.batch_size):
            places = [place for place, _ in batch.items]
            rewards = self._rewards([pixels for _, pixels in batch.items], [samples[place].prompt for place in places])
            for place, reward in list(zip(places, rewards, strict=True))[: batch.counted]:
                total[place] += (reward - MEAN) / DEVIATION
                count[place] += 1
        return means(total, count)

    def _rewards(self, pixels: Sequence[np.ndarray], prompts: Sequence[str]) -> list[float]:
        read = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.device)
        shown = torch.from_numpy(np.stack(pixels)).to(self.device, getattr(torch, self.options.dtype))
        with torch.inference_mode():
            found = raw_reward(self.network, shown, tokens=read["input_ids"], mask=read["attention_mask"])
        return found.double().tolist()
