"""CLIP as transformers saves it: unit embeddings of texts and pictures, and the scorers that are a cosine of the two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

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
from pipelines.models.scorers.pixels import middle_square, whole_in_square
from pipelines.models.scorers.scorer import OpenScorer, Sample, Scorer
from pipelines.models.scorers.strict import load_model, load_tokenizer, refuse_pipeline
from pipelines.models.weights import Weights

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@dataclass(frozen=True)
class ClipOptions:
    """How a CLIP is run."""

    device: str
    """"cpu" or "cuda"."""
    dtype: Precision
    """Precision of weights and activations; embeddings are normalised and compared in float32."""
    batch_size: int
    """Pictures or texts in every forward pass."""
    whole: bool = False
    """Whether the whole picture is shown between black bars, and not the middle square of it."""


class LoadedClip:
    """The model in memory."""

    def __init__(self, folder: Path, options: ClipOptions, *, tokenizer: Path | None) -> None:
        """Reads the weights; tokenizer: its folder, None where no text is read."""
        from transformers import CLIPModel

        prepare(options.device)
        self.options = options
        dtype = getattr(torch, options.dtype)
        self.model = load_model(CLIPModel, folder, dtype=dtype, device=options.device)
        self.tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)
        self.size: int = self.model.config.vision_config.image_size

    @property
    def scale(self) -> float:
        """The factor that the model was trained to multiply a cosine by: about 100."""
        return float(self.model.logit_scale.float().exp())

    def pixels(self, frame: np.ndarray) -> Float[np.ndarray, "3 size size"]:
        """What the model is shown of uint8[height, width, 3]."""
        square = whole_in_square if self.options.whole else middle_square
        return square(frame, size=self.size)

    def texts(self, prompts: Sequence[str]) -> Float[np.ndarray, "prompts width"]:
        """Unit embeddings; a longer text is cut to the model's 77 tokens, of which the last one is its end."""
        assert self.tokenizer is not None
        length = self.model.config.text_config.max_position_embeddings
        found = []
        for batch in equal_batches(prompts, size=self.options.batch_size):
            tokens = self.tokenizer(
                batch.items, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            ).to(self.options.device)
            with torch.inference_mode():
                given = self.model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
            found.append(_unit(given.pooler_output)[: batch.counted])
        return np.concatenate(found)

    def pictures(self, pixels: Sequence[np.ndarray]) -> Float[np.ndarray, "pictures width"]:
        """Unit embeddings of one batch of pictures, as `pixels` gives them."""
        shown = torch.from_numpy(np.stack(pixels)).to(self.options.device, self.model.dtype)
        with torch.inference_mode():
            return _unit(self.model.get_image_features(shown).pooler_output)

    def mean_over_frames(
        self, samples: Sequence[Sample], *, frames: int, measure: Callable[[np.ndarray, int], float]
    ) -> Float[np.ndarray, "samples 1"]:
        """The mean over frames of measure(embedding of the frame, place of the sample); NaN for unreadable files."""
        total, count = np.zeros((len(samples), 1)), np.zeros(len(samples))
        for place, embedding in self._embedded(samples, frames=frames):
            total[place] += measure(embedding, place)
            count[place] += 1
        return means(total, count)

    def mean_embeddings(self, samples: Sequence[Sample], *, frames: int) -> Float[np.ndarray, "samples width"]:
        """The mean of the unit embeddings of each sample's frames, of length 1 again; NaN for unreadable files."""
        total, count = np.zeros((len(samples), self.model.config.projection_dim)), np.zeros(len(samples))
        for place, embedding in self._embedded(samples, frames=frames):
            total[place] += embedding
            count[place] += 1
        mean = means(total, count)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    def _embedded(self, samples: Sequence[Sample], *, frames: int) -> Iterator[tuple[int, np.ndarray]]:
        """(place of the sample, unit embedding of one of its frames) of what can be read, in order."""
        shots = ((place, self.pixels(frame)) for place, frame in readable_frames(samples, most=frames))
        for batch in equal_batches(shots, size=self.options.batch_size):
            embeddings = self.pictures([pixels for _, pixels in batch.items])
            for (place, _), embedding in list(zip(batch.items, embeddings, strict=True))[: batch.counted]:
                yield place, embedding


def _unit(embeddings: torch.Tensor) -> Float[np.ndarray, "n width"]:
    return torch.nn.functional.normalize(embeddings.float(), dim=-1).cpu().numpy()


class OfClip(Scorer, ABC):
    """A scorer that looks at a picture with a CLIP."""

    whole: ClassVar[bool] = False
    """Whether the whole picture is shown between black bars, and not the middle square of it."""

    weights: Weights
    """A CLIPModel as transformers saves it, safetensors only; of the Hub with `holds = "model"`."""
    frames: int = Field(8, ge=1)
    """Frames of a clip that are scored, evenly spaced; a clip's score is their mean."""
    batch_size: int = Field(16, ge=1)
    """Pictures or texts in every forward pass. It is part of the identity: another number changes the last bits."""
    dtype: Precision = "float32"
    """Precision of weights and activations: float32 on every device, as the published numbers were computed."""

    @model_validator(mode="after")
    def _of_a_model(self) -> OfClip:
        refuse_pipeline(self.weights, scorer=self.name)
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """One."""
        return (OVERALL,)

    def options(self, device: str) -> ClipOptions:
        """How the model is run on a device."""
        return ClipOptions(device, self.dtype, self.batch_size, whole=self.whole)


class ClipSimilarity(OfClip, ABC):
    """A scorer that is a function of the cosine of the embeddings of a picture and its prompt."""

    tokenizer: Weights | None = None
    """Where the tokenizer is, if not beside the weights; every CLIP of OpenAI and OpenCLIP has the same one."""

    @model_validator(mode="after")
    def _tokenizer_of_a_model(self) -> ClipSimilarity:
        refuse_pipeline(self.tokenizer, scorer=self.name)
        return self

    @abstractmethod
    def of_cosine(self, cosine: float, *, scale: float) -> float:
        """The score; scale: the model's own logit scale."""

    def open(self, device: str, places: Places) -> OpenScorer:
        """Reads the weights."""
        folder = self.weights.folder(places)
        tokenizer = folder if self.tokenizer is None else self.tokenizer.folder(places)
        return OpenClipSimilarity(LoadedClip(folder, self.options(device), tokenizer=tokenizer), scorer=self)


class OpenClipSimilarity:
    """The model in memory; a file that cannot be read has the score NaN."""

    def __init__(self, clip: LoadedClip, *, scorer: ClipSimilarity) -> None:
        self.clip, self.scorer, self.scale = clip, scorer, clip.scale

    def score(self, samples: Sequence[Sample]) -> Float[np.ndarray, "samples 1"]:
        prompts = list(dict.fromkeys(sample.prompt for sample in samples))
        if not prompts:
            return np.zeros((0, 1))
        texts = dict(zip(prompts, self.clip.texts(prompts), strict=True))

        def measure(picture: np.ndarray, place: int) -> float:
            cosine = float(texts[samples[place].prompt] @ picture)
            return self.scorer.of_cosine(cosine, scale=self.scale)

        return self.clip.mean_over_frames(samples, frames=self.scorer.frames, measure=measure)
