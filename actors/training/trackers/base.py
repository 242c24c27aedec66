"""A sink: one place to which the metrics and pictures of a training go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

STEP = "step"


class Sink(ABC):
    """One place to which metrics go."""

    @abstractmethod
    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Finite numbers of one step."""

    @abstractmethod
    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        """Picture files by name."""

    @abstractmethod
    def flush(self) -> None:
        """Writes out what is still in memory."""

    @abstractmethod
    def close(self) -> None:
        """Called once, last."""
