"""The interface of a writer: texts and pictures in, a new text for each out.

A writer is a frozen config, so that it has an identity, with one method that opens it on a device. What is written depends
on the writer, the request and its seed alone, never on the batch. To add one, write a subclass of `Writer` in a file of its
own:

    class Louder(Writer):
        def open(self, device: str, places: Places) -> OpenWriter:
            return OpenLouder()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from actors.serving.engine import Picture
from infra.config import Config
from infra.dag.stage import Places


@dataclass(frozen=True)
class WritingRequest:
    """What one text is written from."""

    text: str
    """A prompt to be extended or changed, or whatever else the writer's instruction speaks of."""
    pictures: tuple[Picture, ...] = ()
    """Pictures or clips to be described."""
    seed: int = 0
    """Seed of the draws: another one gives another text where the writer draws at all."""


class OpenWriter(Protocol):
    """A writer with its model on a device."""

    def write(self, requests: Sequence[WritingRequest]) -> list[str | Exception]:
        """One text for each request, in order; an exception in the place of one that could not be written."""
        ...


class Writer(Config, ABC):
    """Something that writes texts."""

    name: str = Field(min_length=1)
    """Unique among the writers of a stage; it stands in every row."""

    @abstractmethod
    def open(self, device: str, places: Places) -> OpenWriter:
        """Loads what is needed; device: "cpu" or "cuda"; places: the weights of stages."""
