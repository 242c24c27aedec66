"""Writers on the engines of jurors: a vision-language model in this process, or one behind a chat server."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, field_validator

from actors.serving.engine import Answer, OpenAnswerEngine, Question
from actors.serving.openai import ChatServer
from actors.serving.transformers import TransformersEngine
from infra.config import Config, ConfigError
from infra.dag.stage import Places
from pipelines.models.jurors.vlm import AnyEngine
from pipelines.models.weights import Weights
from pipelines.models.writers.writer import OpenWriter, Writer, WritingRequest


class Writing(Config):
    """What a model is told, and how its text is drawn.

    Writing(instruction="Describe a scene with {text} in one sentence: subject, action, setting, camera.")
    """

    instruction: str
    """Text before the pictures; {text} stands for the request's text."""
    max_tokens: int = Field(512, ge=1)
    """Longest text in tokens, reasoning included; one that is cut off there is a failed request."""
    temperature: float = Field(0.0, ge=0, le=10)
    """The logits are divided by it before a token is drawn; 0: the most likely token at every step, whatever the seed."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Tokens are drawn among the most likely ones that together have this probability."""
    after: tuple[str, ...] = ("</think>",)
    """Marks in their order: the text begins behind the last occurrence of each; one that does not occur is passed over."""

    @field_validator("instruction")
    @classmethod
    def _with_text(cls, value: str) -> str:
        if "{text}" not in value:
            raise ConfigError("Writing: the instruction does not hold {text}, so every request would be the same; add it")
        return value

    def question(self, request: WritingRequest) -> Question:
        """The request as a question that is answered in free text."""
        return Question(
            (self.instruction.replace("{text}", request.text), *range(len(request.pictures))),
            request.pictures,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=request.seed,
        )

    def text(self, answer: Answer | Exception) -> str | Exception:
        """What was written; a ValueError where it is cut off or empty."""
        if isinstance(answer, Exception):
            return answer
        if not answer.ended:
            return ValueError(f"the text is cut off after {self.max_tokens} tokens; raise max_tokens")
        text = answer.text
        for mark in self.after:
            text = text.rpartition(mark)[2]
        return text.strip() or ValueError(f"the writer wrote nothing: {answer.text[:80]!r}")


class OpenModelWriter:
    """A model that answers, and what it is told."""

    def __init__(self, engine: OpenAnswerEngine, writing: Writing) -> None:
        self.engine = engine
        self.writing = writing

    def write(self, requests: Sequence[WritingRequest]) -> list[str | Exception]:
        """All requests in one call of the engine."""
        answers = self.engine.ask([self.writing.question(request) for request in requests])
        return [self.writing.text(answer) for answer in answers]


class VlmWriter(Writer):
    """A vision-language model of a folder or repository that writes."""

    weights: Weights
    """Model, tokenizer and processor as transformers saves them, safetensors only; of the Hub with `holds = "model"`."""
    writing: Writing
    """What it is told."""
    engine: AnyEngine = TransformersEngine()
    """What runs it."""

    def open(self, device: str, places: Places) -> OpenWriter:
        """Reads the weights."""
        return OpenModelWriter(self.engine.load(self.weights.folder(places), device=device), self.writing)


class ServedWriter(Writer):
    """A model behind a chat server that writes; whether a seed gives the same text again is the server's affair."""

    server: ChatServer
    """What is served, and where."""
    writing: Writing
    """What it is told."""

    def open(self, device: str, places: Places) -> OpenWriter:
        """Reads the key from the environment."""
        return OpenModelWriter(self.server.open(), self.writing)
