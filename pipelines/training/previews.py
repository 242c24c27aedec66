"""Pictures of fixed texts that are drawn while a policy trains, to see what it has become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field

from infra.config import Config


class Previews(Config):
    """Which texts are drawn, and how."""

    texts: tuple[str, ...] = ()
    """Must be among the texts that `encode` encodes."""
    frames: int = Field(1, ge=1)
    """Frames of a preview; 1 for a picture."""
    height: int = Field(512, ge=8)
    """Pixels."""
    width: int = Field(512, ge=8)
    """Pixels."""
    steps: int = Field(20, ge=1)
    """Sampling steps."""
    guidance: float = Field(4.0, ge=1)
    """Scale of classifier-free guidance."""
    seed: int = Field(0, ge=0)
    """Seed of the first text's noise; each further text has the next one."""

    def spec(self, text_id: Callable[[str], str]) -> PreviewSpec:
        """What workers are sent; `text_id`: the id of a text's encoded conditions."""
        texts = tuple((text, text_id(text)) for text in self.texts)
        shape = (self.frames, self.height, self.width)
        return PreviewSpec(texts, text_id(""), shape, self.steps, self.guidance, self.seed)


@dataclass(frozen=True)
class PreviewSpec:
    """The same with the ids under which the texts were encoded."""

    texts: tuple[tuple[str, str], ...]  # (text, id of its encoded conditions)
    empty: str  # id of the empty text's conditions
    shape: tuple[int, int, int]  # frames, height, width in pixels
    steps: int
    guidance: float
    seed: int
