"""Pictures of fixed texts that are drawn while a policy trains, to see what it has become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from infra.config import Config

if TYPE_CHECKING:
    from torch import nn

    from pipelines.models.policy import Policy
    from pipelines.training.data import Latents


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


def draw_previews(spec: PreviewSpec, policy: Policy, model: nn.Module, *, texts: Latents, folder: Path | None) -> None:
    """One picture per text, its first frame where it is a clip, as NNN.png in `folder`; None: drawn, but not written.

    Every rank calls it, since a divided model needs all of them.
    """
    from PIL import Image as Pillow

    known = texts.get([spec.empty, *(name for _, name in spec.texts)])
    drawn = policy.draw(
        model,
        [known[name] for _, name in spec.texts],
        negative=known[spec.empty],
        size=spec.shape,
        steps=spec.steps,
        guidance=spec.guidance,
        seeds=[spec.seed + number for number in range(len(spec.texts))],
        decoded=folder is not None,
    )
    if folder is not None and drawn is not None:
        for number, frames in enumerate(drawn):
            Pillow.fromarray(frames[0]).save(folder / f"{number:03d}.png")
