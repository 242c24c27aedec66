"""Does a picture show the text that its prompt asks for? Read by a vision-language model: scorer `ocr` for a GPU.

Any model that AutoModelForImageTextToText loads will do: a general one, which is told to copy the text, or one trained to
read (GOT-OCR 2, olmOCR). The model is asked about each frame and answers in free text; the measures are those of `ocr`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from actors.serving.engine import OpenAnswerEngine, Question
from actors.serving.transformers import TransformersEngine
from infra.dag.stage import Places
from pipelines.models.jurors.vlm import AnyEngine
from pipelines.models.scorers.batches import equal_batches
from pipelines.models.scorers.frames import means, readable_frames
from pipelines.models.scorers.ocr import CONVENTION, DIMENSIONS, asked_text, compared
from pipelines.models.scorers.scorer import OpenScorer, Sample, Scorer
from pipelines.models.scorers.strict import refuse_pipeline
from pipelines.models.weights import Weights

AT_ONCE = 64
"""Frames given to the engine in one call: they are in memory together."""


class OcrModel(Scorer):
    """Compares the text that a model reads in a picture with the text that was asked for."""

    convention: ClassVar = CONVENTION

    name: str = "ocr_model"
    weights: Weights
    """Model, tokenizer and processor as transformers saves them, safetensors only; of the Hub with `holds = "model"`."""
    engine: AnyEngine = TransformersEngine()
    """What runs it."""
    instruction: str = (
        "Copy all text in this picture exactly as it is written, line by line. Answer with the text alone, and with an "
        "empty line if there is none."
    )
    """What the model is told after the picture."""
    max_tokens: int = Field(128, ge=1)
    """Longest text in tokens; a frame whose text is cut off there leaves its sample without a score."""
    frames: int = Field(4, ge=1)
    """Frames of a clip that are read, evenly spaced; a clip's scores are their means."""

    @model_validator(mode="after")
    def _of_a_model(self) -> OcrModel:
        refuse_pipeline(self.weights, scorer=self.name)
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Those of scorer `ocr`."""
        return DIMENSIONS

    def open(self, device: str, places: Places) -> OpenScorer:
        """Reads the weights."""
        return OpenOcrModel(self, self.engine.load(self.weights.folder(places), device=device))


class OpenOcrModel:
    """The model in memory; NaN where a prompt asks for no text, a file cannot be read or a question cannot be asked."""

    def __init__(self, scorer: OcrModel, engine: OpenAnswerEngine) -> None:
        self.scorer, self.engine = scorer, engine

    def score(self, samples: Sequence[Sample]) -> Float[np.ndarray, "samples 3"]:
        total, count = np.zeros((len(samples), len(DIMENSIONS))), np.zeros(len(samples))
        texts = [asked_text(sample) for sample in samples]
        wanted = [place for place, text in enumerate(texts) if text]
        shown = readable_frames([samples[place] for place in wanted], most=self.scorer.frames)
        for batch in equal_batches(((wanted[at], frame) for at, frame in shown), size=AT_ONCE):
            asked = batch.items[: batch.counted]
            for (place, _), answer in zip(
                asked, self.engine.ask([self._question(frame) for _, frame in asked]), strict=True
            ):
                if isinstance(answer, Exception) or not answer.ended:
                    total[place] = math.nan  # a mean over the other frames would flatter the sample
                else:
                    total[place] += compared(answer.text, asked=texts[place])
                count[place] += 1
        return means(total, count)

    def _question(self, frame: np.ndarray) -> Question:
        return Question((0, self.scorer.instruction), (frame,), max_tokens=self.scorer.max_tokens)
