"""LAION's aesthetic predictor (Schuhmann, 2022): a linear head on the unit picture embedding of CLIP-L/14."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import model_validator
from safetensors import SafetensorError

from infra.config import ConfigError
from infra.dag.stage import Places
from infra.lazy import lazy
from pipelines.models.exact import load_exactly
from pipelines.models.scorers.clip import LoadedClip, OfClip
from pipelines.models.scorers.linear_head import apply_head, linear_head
from pipelines.models.scorers.scorer import OpenScorer, Sample
from pipelines.models.scorers.strict import refuse_pipeline
from pipelines.models.weights import Weights

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

HEAD = "model.safetensors"


class Aesthetic(OfClip):
    """How beautiful a picture is, whatever its prompt: the expected rating of people who graded from 1 to 10.

    Weights: openai/clip-vit-large-patch14. Head: sac+logos+ava1-l14-linearMSE.pth of christophschuhmann's
    improved-aesthetic-predictor, converted by `python -m pipelines.models.scorers.convert aesthetic`.
    """

    convention: ClassVar = "expected rating from 1 to 10; clips: mean of frames"

    name: str = "aesthetic"
    head: Weights
    """A folder with the head in model.safetensors."""

    @model_validator(mode="after")
    def _head_of_a_model(self) -> Aesthetic:
        refuse_pipeline(self.head, scorer=self.name)
        return self

    def open(self, device: str, places: Places) -> OpenScorer:
        """Reads the weights."""
        clip = LoadedClip(self.weights.folder(places), self.options(device), tokenizer=None)
        return OpenAesthetic(clip, head=self.head.folder(places) / HEAD, frames=self.frames)


class OpenAesthetic:
    """The model in memory; a file that cannot be read has the score NaN."""

    def __init__(self, clip: LoadedClip, *, head: Path, frames: int) -> None:
        self.clip, self.frames = clip, frames
        self.head = linear_head(clip.model.config.projection_dim).requires_grad_(False)
        load_exactly(self.head, read_tensors(head), source=str(head))

    def score(self, samples: Sequence[Sample]) -> Float[np.ndarray, "samples 1"]:
        # One picture at a time: the head is small, and its result then never depends on a batch.
        measure = lambda embedding, _: float(apply_head(self.head, torch.from_numpy(embedding)[None]))  # noqa: E731
        return self.clip.mean_over_frames(samples, frames=self.frames, measure=measure)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, in float32; raises ConfigError where it cannot be read."""
    from safetensors.torch import load_file

    try:
        return {name: tensor.float() for name, tensor in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{file} cannot be read as safetensors: {error}; convert the published file again") from error
