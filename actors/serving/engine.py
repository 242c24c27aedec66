"""What a vision-language model is asked and what it answers: the same for every engine.

This is the only declaration of a question and an answer. It imports no model, so that questionnaires
(`pipelines.algorithms.prompting`) speak of the same things.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from actors.media import open_picture
from infra.config import Config

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = bytes | np.ndarray
"""An encoded picture (PNG, JPEG, ...), or uint8[height, width, 3]."""
Precision = Literal["float32", "bfloat16", "float16"]
"""Names of torch's types of weights and activations."""


@dataclass(frozen=True)
class Question:
    """One turn of a user: text and pictures in reading order, answered by one of a few words or by free text."""

    parts: tuple[str | int, ...]
    """Text in reading order; an int stands for the picture of that index."""
    pictures: tuple[Picture, ...]
    """The pictures that the parts name."""
    answers: tuple[str, ...] = ()
    """The words that count, one token each; empty: the answer is free text."""
    max_tokens: int = 1
    """Longest free text in tokens."""

    @property
    def shown(self) -> list[Picture]:
        """The pictures in reading order."""
        return [self.pictures[part] for part in self.parts if isinstance(part, int)]

    @property
    def conversation(self) -> list[dict[str, Any]]:
        """The question as the messages of a chat template."""
        parts = [{"type": "image"} if isinstance(p, int) else {"type": "text", "text": p} for p in self.parts]
        return [{"role": "user", "content": parts}]

    @property
    def content(self) -> tuple[Any, ...]:
        """Equal for two questions exactly when every byte of them is equal."""
        pictures = (p if isinstance(p, bytes) else (p.shape, p.tobytes()) for p in self.pictures)
        return (self.parts, self.answers, self.max_tokens, *pictures)


@dataclass(frozen=True)
class Answer:
    """What the model answered."""

    text: str
    """The most likely first token, whatever it is; or the free text."""
    log_probabilities: Mapping[str, float] = field(default_factory=dict[str, float])
    """Natural logarithm of the probability of each word that counts; empty for free text."""


class OpenAnswerEngine(Protocol):
    """A model in memory."""

    def ask(self, questions: Sequence[Question]) -> list[Answer | Exception]:
        """Answers in the order of the questions; an exception in the place of one that could not be asked.

        An answer depends on its question alone: not on the others, nor on their order.
        """
        ...


class AnswerEngine(Config, ABC):
    """What loads and runs a vision-language model."""

    @abstractmethod
    def load(self, folder: Path, *, device: str) -> OpenAnswerEngine:
        """Reads the model of a folder (as transformers saves it) onto "cpu" or "cuda"; slow, once in a process."""


def precision_on(device: str, *, asked: Precision | None) -> Precision:
    """The precision asked for; otherwise float32 on a CPU and bfloat16 on a GPU."""
    return asked or ("float32" if device == "cpu" else "bfloat16")


def decoded(picture: Picture) -> Image:
    """The picture as RGB; raises OSError for bytes that are no picture."""
    from PIL import Image

    if isinstance(picture, bytes):
        return open_picture(picture).convert("RGB")
    return Image.fromarray(picture)


@dataclass(frozen=True)
class Decoded:
    """A question whose pictures were read."""

    question: Question
    pictures: list[Image]


def ask_distinct(
    questions: Sequence[Question], *, ask: Callable[[list[Decoded]], list[Answer | Exception]]
) -> list[Answer | Exception]:
    """Answers in order: equal questions are asked once, and one whose pictures do not decode is not asked at all."""
    answers: dict[tuple[Any, ...], Answer | Exception] = {}
    readable: dict[tuple[Any, ...], Decoded] = {}
    keys = [question.content for question in questions]
    for key, question in zip(keys, questions, strict=True):
        if key in readable or key in answers:
            continue
        try:
            readable[key] = Decoded(question, [decoded(picture) for picture in question.shown])
        except (OSError, ValueError) as error:
            answers[key] = error
    answers |= zip(readable, ask(list(readable.values())), strict=True)
    return [answers[key] for key in keys]
