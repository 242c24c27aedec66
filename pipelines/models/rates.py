"""Rates that others have measured and published, in `rates.yaml`: what is known before a store has runs of its own."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from infra.config import Config

FILE = Path(__file__).with_name("rates.yaml")


class PictureRate(Config):
    """How long one GPU took for a picture."""

    weights: str
    """The repository of the Hub that holds the pipeline."""
    seconds: float = Field(gt=0)
    """Of one GPU, per picture."""
    steps: int = Field(ge=1)
    """Sampling steps of this picture."""
    side: int = Field(ge=8)
    """Of the square picture, in pixels."""
    second_pass: bool
    """Whether guidance took a second pass of the denoiser in each step."""
    device: str
    source: str
    """Where it was published, and under what it was measured."""


class OnlineRate(Config):
    """How fast online training went: rollout, rewards and update together."""

    weights: str
    """The repository of the Hub that holds the pipeline."""
    method: Literal["online_dpo"]
    samples_per_gpu_second: float = Field(gt=0)
    """Pictures that an update learned from, per GPU and second."""
    candidates: int = Field(ge=2)
    """Pictures drawn per prompt, of which the best and the worst were kept."""
    gpus: int = Field(ge=1)
    device: str
    source: str
    """Where it was published, and under what it was measured."""


class Rates(Config):
    """The table."""

    pictures: tuple[PictureRate, ...]
    online: tuple[OnlineRate, ...]


@lru_cache
def published_rates() -> Rates:
    """The table that Salon ships."""
    return Rates(**yaml.safe_load(FILE.read_text()))


def picture_rate(weights: str, *, height: int | None, width: int | None) -> PictureRate | None:
    """The published rate of a pipeline at a size in pixels; None where nobody's is known here."""
    for rate in published_rates().pictures:
        if rate.weights == weights and height == width == rate.side:
            return rate
    return None
