"""What an actor needs from above: picklable configs that load into something that works. No algorithm is known here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class LoadedSampler(Protocol):
    """A generator on a device."""

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> Sequence[np.ndarray]:
        """One picture a prompt, uint8 [height, width, 3]; each depends on its own prompt and seed alone."""
        ...


class Sampler(Protocol):
    """A generator's config."""

    @property
    def name(self) -> str:
        """Unique within a roster."""
        ...

    def load(self, device: str = "cpu") -> Any:
        """A LoadedSampler."""
        ...
