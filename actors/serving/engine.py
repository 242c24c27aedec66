"""What a vision-language model is asked and what it answers: the same for every engine.

This is the only declaration of a question and an answer. It imports no model, so that questionnaires
(`pipelines.algorithms.prompting`) speak of the same things.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from infra.config import Config

Picture = bytes | np.ndarray
"""An encoded picture (PNG, JPEG, ...) or clip (MP4, WebM, ...), or a picture as uint8[height, width, 3]."""
Precision = Literal["float32", "bfloat16", "float16"]
"""Names of torch's types of weights and activations."""


@dataclass(frozen=True)
class Question:
    """One turn of a user: text and pictures in reading order, answered by one of a few words or by free text."""

    parts: tuple[str | int, ...]
    """Text in reading order; an int stands for the picture of that index."""
    pictures: tuple[Picture, ...]
    """The pictures and clips that the parts name."""
    answers: tuple[str, ...] = ()
    """The words that count, one token each; empty: the answer is free text."""
    max_tokens: int = 1
    """Longest free text in tokens."""
    temperature: float = 0.0
    """Of free text: the logits are divided by it before a token is drawn; 0: the most likely token at every step."""
    top_p: float = 1.0
    """Of free text: tokens are drawn among the most likely ones that together have this probability."""
    seed: int = 0
    """Seed of the draws of free text."""

    @property
    def content(self) -> tuple[Any, ...]:
        """Equal for two questions exactly when every byte of them is equal."""
        pictures = (p if isinstance(p, bytes) else (p.shape, p.tobytes()) for p in self.pictures)
        return (self.parts, self.answers, self.max_tokens, self.temperature, self.top_p, self.seed, *pictures)


@dataclass(frozen=True)
class Answer:
    """What the model answered."""

    text: str
    """The most likely first token, whatever it is; or the free text."""
    log_probabilities: Mapping[str, float] = field(default_factory=dict[str, float])
    """Natural logarithm of the probability of each word that counts; empty for free text, and where none are known."""
    ended: bool = True
    """Whether free text ended by itself; False where it was cut off at the largest number of tokens."""
    read: str | None = None
    """What a grammar has read from free text, "" where it could read nothing; None: nobody has read it."""

    @property
    def said(self) -> str:
        """What was read from the text; where nothing reads it, the text itself without white space around it."""
        return self.text.strip() if self.read is None else self.read


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
