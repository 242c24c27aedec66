"""The network of a latent reward model: a module on the denoiser of a loaded generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import nn

from pipelines.algorithms.diffusion.path import PathSample
from pipelines.models.families.base import Condition
from pipelines.models.families.loaded import LoadedFamily


class RewardNetwork(nn.Module, ABC):
    """A `LatentReward` with parameters. `generator` says how latents are noised and how its denoiser is called."""

    generator: LoadedFamily
    constants: tuple[str, ...] = ()
    """Names of the buffers that are measured before training and stored with what is trained."""

    def calibrate(self, points: Iterable[tuple[PathSample, Condition]]) -> None:
        """Measures the constants on noised training data, before the first step; by default there are none."""

    @property
    def reads_target(self) -> bool:
        """Whether `target` must be given; by default it is ignored."""
        return False

    @abstractmethod
    def forward(
        self,
        x_t: Float[torch.Tensor, "batch *shape"],
        *,
        t: Float[torch.Tensor, " batch"],
        condition: Condition,
        target: Float[torch.Tensor, "batch *shape"] | None = None,
    ) -> Float[torch.Tensor, "batch dimensions"]:
        """Scores of latents at times t in [0, 1], where 1 is noise; higher is better. See `LatentReward` for `target`."""
