"""How probable a vision-language model finds it that a picture shows its prompt: VQAScore and Soft-TIFA.

VQAScore (Lin et al., 2024) asks one question about the whole prompt and takes the probability of "Yes" as the first token
of the answer. Soft-TIFA, GenEval2's measure, asks a question about each part of the prompt and takes the mean of the
probabilities of the right answers. Any engine and any model will do; scores of two models do not compare.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from actors.serving.engine import Answer, OpenAnswerEngine, Question
from actors.serving.transformers import TransformersEngine
from infra.config import ConfigError
from infra.dag.stage import Places
from pipelines.algorithms.prompting.opinion import OVERALL
from pipelines.models.jurors.vlm import AnyEngine
from pipelines.models.scorers.batches import equal_batches
from pipelines.models.scorers.frames import means, readable_frames
from pipelines.models.scorers.scorer import OpenScorer, Sample, Scorer
from pipelines.models.scorers.strict import refuse_pipeline
from pipelines.models.weights import Weights

QUESTION = 'Does this figure show "{caption}"? Please answer yes or no.'
"""VQAScore's published question."""
AT_ONCE = 128
"""Questions given to the engine in one call: their pictures are in memory together."""


class SoftAlignment(Scorer, ABC):
    """Asks a vision-language model about every frame; a sample's score is the mean over its frames."""

    weights: Weights
    """Model, tokenizer and processor as transformers saves them, safetensors only; of the Hub with `holds = "model"`."""
    engine: AnyEngine = TransformersEngine()
    """What runs it."""
    frames: int = Field(4, ge=1)
    """Frames of a clip that are asked about one by one, evenly spaced."""

    @model_validator(mode="after")
    def _of_a_model(self) -> SoftAlignment:
        refuse_pipeline(self.weights, scorer=self.name)
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """One."""
        return (OVERALL,)

    @abstractmethod
    def questions(self, sample: Sample) -> list[tuple[str, tuple[str, ...]]]:
        """What is asked about every frame: text and the words that count, the right answer first."""

    @abstractmethod
    def share(self, answer: Answer, words: Sequence[str]) -> float:
        """The score of one answer in [0, 1]."""

    def open(self, device: str, places: Places) -> OpenScorer:
        """Reads the weights."""
        return OpenSoftAlignment(self, self.engine.load(self.weights.folder(places), device=device))


class VQAScore(SoftAlignment):
    """VQAScore: P("Yes"), of all first tokens that the model could say."""

    convention: ClassVar = "P(yes) of all first tokens, in [0, 1]; clips: mean of frames"

    name: str = "vqascore"
    question: str = QUESTION
    """What is asked; {caption} stands for the prompt."""
    yes: str = Field("Yes", min_length=1)
    """The answer whose probability is the score; one token of the model."""

    @model_validator(mode="after")
    def _asks(self) -> VQAScore:
        _refuse_question(self.question, scorer=self.name)
        return self

    def questions(self, sample: Sample) -> list[tuple[str, tuple[str, ...]]]:
        return [(self.question.replace("{caption}", sample.prompt), (self.yes,))]

    def share(self, answer: Answer, words: Sequence[str]) -> float:
        return math.exp(answer.log_probabilities[words[0]])


class YesShare(SoftAlignment):
    """P("Yes") / (P("Yes") + P("No")): how a model decides where it must say one of the two."""

    convention: ClassVar = "P(yes) / (P(yes) + P(no)), in [0, 1]; clips: mean of frames"

    name: str = "yes_share"
    question: str = QUESTION
    """What is asked; {caption} stands for the prompt."""
    yes: str = Field("Yes", min_length=1)
    """The answer for a picture that fits; one token of the model."""
    no: str = Field("No", min_length=1)
    """The answer for one that does not; one token of the model."""

    @model_validator(mode="after")
    def _asks(self) -> YesShare:
        _refuse_question(self.question, scorer=self.name)
        if self.yes == self.no:
            raise ConfigError(f"scorer {self.name}: both answers are {self.yes!r}; they must differ")
        return self

    def questions(self, sample: Sample) -> list[tuple[str, tuple[str, ...]]]:
        return [(self.question.replace("{caption}", sample.prompt), (self.yes, self.no))]

    def share(self, answer: Answer, words: Sequence[str]) -> float:
        odds = answer.log_probabilities[words[0]] - answer.log_probabilities[words[1]]
        return 0.5 * (1 + math.tanh(odds / 2))  # the logistic function, without overflow


class SoftTIFA(SoftAlignment):
    """The mean over the questions of the prompt's expectation of the probability of the right answer.

    The expectation holds `{"questions": [["How many cats are there?", "2"], ...]}`; an answer is one token of the model.
    Without questions a sample has no score.
    """

    convention: ClassVar = "mean over questions of P(right answer), in [0, 1]; clips: mean of frames"

    name: str = "soft_tifa"
    form: str = "{question} Answer in one word."
    """What is asked; {question} stands for a question of the expectation."""

    @model_validator(mode="after")
    def _asks(self) -> SoftTIFA:
        if "{question}" not in self.form:
            raise ConfigError(f"scorer {self.name}: the form {self.form!r} lacks {{question}}; add it")
        return self

    def questions(self, sample: Sample) -> list[tuple[str, tuple[str, ...]]]:
        expected = json.loads(sample.expectation) if sample.expectation else {}
        asked = expected.get("questions", []) if isinstance(expected, dict) else []
        return [(self.form.replace("{question}", question), (answer,)) for question, answer in asked]

    def share(self, answer: Answer, words: Sequence[str]) -> float:
        return math.exp(answer.log_probabilities[words[0]])


class OpenSoftAlignment:
    """The model in memory; NaN for a file that cannot be read and for a question that could not be asked."""

    def __init__(self, scorer: SoftAlignment, engine: OpenAnswerEngine) -> None:
        self.scorer, self.engine = scorer, engine

    def score(self, samples: Sequence[Sample]) -> Float[np.ndarray, "samples 1"]:
        total, count = np.zeros((len(samples), 1)), np.zeros(len(samples))
        for batch in equal_batches(self._asked(samples), size=AT_ONCE):
            asked = batch.items[: batch.counted]
            answers = self.engine.ask([question for _, question in asked])
            for (place, question), answer in zip(asked, answers, strict=True):
                # One question that fails leaves its sample without a score: a mean over the others would flatter it.
                failed = isinstance(answer, Exception)
                total[place] += math.nan if failed else self.scorer.share(answer, question.answers)
                count[place] += 1
        return means(total, count)

    def _asked(self, samples: Sequence[Sample]) -> Iterator[tuple[int, Question]]:
        """(place of the sample, question about one of its frames), in order."""
        asked = [self.scorer.questions(sample) for sample in samples]
        for place, frame in readable_frames(samples, most=self.scorer.frames):
            for text, words in asked[place]:
                yield place, Question((0, text), (frame,), words)


def _refuse_question(question: str, *, scorer: str) -> None:
    if "{caption}" not in question:
        raise ConfigError(f"scorer {scorer}: the question {question!r} lacks {{caption}}; add it")
