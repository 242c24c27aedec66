"""What a juror's engine is asked and what it answers; the same for every engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = bytes | np.ndarray  # an encoded picture (PNG), or uint8[height, width, 3]


class Question(Protocol):
    """A user's turn whose answer is one token."""

    @property
    def parts(self) -> tuple[str | int, ...]:
        """Text in reading order, an int standing for the picture of that index."""
        ...

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures that the parts name."""
        ...

    @property
    def answers(self) -> tuple[str, ...]:
        """The words that count, one token each."""
        ...


@dataclass(frozen=True)
class Answer:
    """The most likely first token and the log-probabilities (natural) of the words that count."""

    text: str
    log_probabilities: Mapping[str, float]


class LoadedEngine(Protocol):
    """A model in memory."""

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the order of the questions; raises on a question that cannot be asked."""
        ...


class Engine(Protocol):
    """What loads a model: a picklable config."""

    def load(self) -> LoadedEngine:
        """Reads the weights; slow, once in a process."""
        ...


def conversation(question: Question) -> list[dict[str, Any]]:
    """The question as the messages of a chat template."""
    parts = [{"type": "image"} if isinstance(part, int) else {"type": "text", "text": part} for part in question.parts]
    return [{"role": "user", "content": parts}]


def shown(question: Question) -> list[Picture]:
    """The question's pictures in reading order."""
    return [question.pictures[part] for part in question.parts if isinstance(part, int)]


def decoded(picture: Picture) -> Image:
    """The picture as RGB."""
    from PIL import Image

    if isinstance(picture, bytes):
        return Image.open(BytesIO(picture)).convert("RGB")
    return Image.fromarray(picture)


def same(question: Question) -> tuple[Any, ...]:
    """Equal for questions that are the same in every byte: a model need be asked only once."""
    pictures = (p if isinstance(p, bytes) else (p.shape, p.tobytes()) for p in question.pictures)
    return (question.parts, question.answers, *pictures)
