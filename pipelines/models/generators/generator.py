"""The interface of a generator: a frozen config that opens on a device and then turns requests into pixels.

To add one, write a subclass of `Generator` in a file of its own and put it into the roster of stage `render`:

>>> class Noise(Generator):
...     name: str = "noise"
...     edge: int = 8
...
...     @property
...     def medium(self) -> Medium:
...         return "image"
...
...     def open(self, device: str, places: Places) -> OpenGenerator:
...         return OpenNoise(self.edge)
>>> class OpenNoise:
...     def __init__(self, edge):
...         self.shape = (1, edge, edge, 3)
...
...     def sample(self, requests):
...         return [np.random.default_rng(r.seed).integers(0, 256, self.shape, dtype=np.uint8) for r in requests]
>>> [pixels] = Noise(edge=16).open("cpu", places=None).sample([Request("a red circle", seed=7)])
>>> pixels.dtype, pixels.shape  # one frame: a picture
(dtype('uint8'), (1, 16, 16, 3))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from infra.config import Config
from infra.dag.stage import Places

Medium = Literal["image", "video"]
Pixels = UInt8[np.ndarray, "frames height width 3"]
"""RGB levels from 0 to 255; a picture is one frame."""


@dataclass(frozen=True)
class Request:
    """One picture or clip that is asked for."""

    prompt: str
    seed: int
    """In [0, 2^63): with the prompt and the first frame it decides every pixel."""
    first_frame: bytes | None = None
    """An encoded picture that the clip begins with; None: text alone."""


class OpenGenerator(Protocol):
    """A generator in memory, on a device."""

    def sample(self, requests: Sequence[Request]) -> Sequence[Pixels | Exception]:
        """One result for each request, in order.

        A result depends on its own request alone, to the last bit: never on the other requests or on how many there are.
        An exception in the place of a result says why this one request failed; the others stand.
        """
        ...


class Generator(Config, ABC):
    """What makes pictures or clips of prompts, and how it is sampled; its fields are its identity."""

    name: str = Field(min_length=1)
    """Unique within a roster; pictures, pairs and ratings carry it."""

    @property
    @abstractmethod
    def medium(self) -> Medium:
        """Whether it makes pictures or clips."""

    @property
    def fps(self) -> float | None:
        """Frames per second of its clips; None for pictures."""
        return None

    @property
    def together(self) -> int | None:
        """Requests that are sampled in one call, where handing over more only holds more pixels; None: any number."""
        return None

    def published(self) -> tuple[float, str] | None:
        """Seconds of one GPU per picture or clip as others have published them, and on which device; None: unknown."""
        return None

    @abstractmethod
    def open(self, device: str, places: Places) -> OpenGenerator:
        """Loads the models on `device` ("cpu" or "cuda"); `places` finds the weights that stages made."""
