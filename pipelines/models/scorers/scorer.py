"""The interface of a scorer: one picture or clip and its prompt in, a number for each dimension out.

A scorer is a frozen config, so that it has an identity, with one method that opens it on a device. To add one, write a
subclass of `Scorer` in a file of its own and hand it to stage `score`:

>>> class Brightness(Scorer):
...     convention: ClassVar = "mean of all channels, in [0, 1]"
...     name: str = "brightness"
...
...     @property
...     def dimensions(self) -> tuple[str, ...]:
...         return ("overall",)
...
...     def open(self, device: str, places: Places) -> OpenScorer:
...         return OpenBrightness()
>>> class OpenBrightness:
...     def score(self, samples):
...         pictures = [decode(sample.media, clip=sample.medium == "video") for sample in samples]
...         return np.array([[pixels.mean() / 255] for pixels in pictures])
>>> from actors.media import decode, encode_png
>>> grey = encode_png(np.full((8, 8, 3), 51, dtype=np.uint8)).bytes
>>> Brightness().open("cpu", places=None).score([Sample(grey, "image", "a grey field")]).tolist()
[[0.2]]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from jaxtyping import Float
from pydantic import Field

from infra.config import Config
from infra.dag.stage import Places


@dataclass(frozen=True)
class Sample:
    """One picture or clip to be scored."""

    media: bytes
    """The encoded file."""
    medium: Literal["image", "video"]
    prompt: str
    """The text it was rendered for."""
    expectation: str = ""
    """Canonical JSON of what the prompt asks for, where the prompts say it: for a checker or a detector."""
    others: tuple[bytes, ...] = ()
    """The files of the other samples of its prompt and generator; given to a scorer that is `of_group` only."""


class OpenScorer(Protocol):
    """A scorer with its model on a device."""

    def score(self, samples: Sequence[Sample]) -> Float[np.ndarray, "samples dimensions"]:
        """Scores in the order of the samples and of the scorer's dimensions; NaN where a sample could not be scored.

        A sample's scores depend on that sample (and its `others`) alone, never on its batch: a model whose last bits
        depend on the batch size fills every batch up to one size.
        """
        ...


class Scorer(Config, ABC):
    """A measure of single pictures or clips; higher is better in every dimension."""

    convention: ClassVar[str]
    """Scale of the numbers, for instance "100 cos" or "logit"; kept with every score."""
    of_group: ClassVar[bool] = False
    """Whether a sample's score depends on the other samples of its prompt and generator too, as a diversity does."""

    name: str = Field(min_length=1)
    """Unique among the scorers of a stage."""

    @property
    @abstractmethod
    def dimensions(self) -> tuple[str, ...]:
        """Names of the columns of a score, at least one."""

    @abstractmethod
    def open(self, device: str, places: Places) -> OpenScorer:
        """Loads the model.

        device: "cpu" or "cuda"; places: where the weights of stages lie, for `Made` weights.
        """
