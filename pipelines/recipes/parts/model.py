"""A published generator as a recipe of its user's pairs takes it: which one, where its weights are, what is trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from infra.config import ConfigError
from infra.store.files import Folder
from pipelines.algorithms.diffusion.flow import LogitNormalTimes, TimeSampler, UniformTimes
from pipelines.models.adapter import Full, LoRA
from pipelines.models.families.base import Family
from pipelines.models.families.flux import FLUX
from pipelines.models.families.sd3 import SD3
from pipelines.models.families.sd15 import SD15
from pipelines.models.families.sdxl import SDXL
from pipelines.models.memory import Architecture
from pipelines.models.sizes import ARCHITECTURES, PUBLISHED
from pipelines.models.weights import Hub


@dataclass(frozen=True)
class Model:
    """A generator and what of it is trained."""

    name: str
    """A published architecture."""
    weights: str
    """Folder or hub id; "": the published one."""
    revision: str
    adapter: Literal["lora", "full"]
    rank: int = 64
    alpha: float = 128.0

    @property
    def size(self) -> Architecture:
        """The published size, which knows the class of the family."""
        return ARCHITECTURES[self.name]

    @cached_property
    def family(self) -> Family:
        """The generator: its family with its weights."""
        return self.size.family(weights=self.source())

    @property
    def diffusion(self) -> bool:
        """Whether it predicts noise, and not a velocity."""
        return self.size.family in (SD15, SDXL)

    def source(self) -> Folder | Hub:
        """Where its weights are; raises ConfigError for a path that is not there."""
        given = self.weights or PUBLISHED[self.name]
        if Path(given).is_dir():
            return Folder(path=given)
        if given.startswith(("/", ".", "~")) or given.count("/") != 1:
            raise ConfigError(f"--weights {given}: no such folder, and no hub id (OWNER/NAME); give one of both")
        return Hub(repo=given, revision=self.revision)

    def trained(self) -> LoRA | Full:
        """The adapter."""
        return LoRA(rank=self.rank, alpha=self.alpha) if self.adapter == "lora" else Full()

    def times(self) -> TimeSampler:
        """Noise levels: uniform over a diffusion's steps and for video; for SD3 and FLUX as they were trained.

        ViPO does not say how it draws them: logit-normal times with the scheduler's shift are Salon's choice.
        """
        if self.size.family in (SD3, FLUX):
            return LogitNormalTimes(shift="generator")
        return UniformTimes(low=0.0, high=1.0)
