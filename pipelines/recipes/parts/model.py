"""The generator that a recipe trains: which one, where its weights are, and what of it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from infra.config import ConfigError
from infra.store.files import Folder
from pipelines.algorithms.diffusion.flow import LogitNormalTimes, TimeSampler, UniformTimes
from pipelines.models.adapter import Full, LoRA
from pipelines.models.families.base import Family, read_index
from pipelines.models.families.flux import FLUX
from pipelines.models.families.flux2 import FLUX2Klein
from pipelines.models.families.qwen_image import QwenImage
from pipelines.models.families.sd3 import SD3
from pipelines.models.families.sd15 import SD15
from pipelines.models.families.sdxl import SDXL
from pipelines.models.families.z_image import ZImage
from pipelines.models.memory import Architecture
from pipelines.models.sizes import ARCHITECTURES, PUBLISHED
from pipelines.models.weights import Hub, Weights

PictureModel = Literal[
    "sd15", "sdxl", "sd3.5-medium", "flux.1-dev", "flux.2-klein-4b", "flux.2-klein-9b", "qwen-image", "z-image"
]
"""Generators of pictures that a recipe takes."""
ClipModel = Literal["wan2.1-1.3b", "wan2.1-14b", "wan2.1-i2v-14b", "wan2.2-ti2v-5b", "wan2.2-i2v-5b", "hunyuanvideo"]
"""Generators of clips; those with i2v in their name start from the first frame of each clip, too."""


@dataclass(frozen=True)
class Trainee:
    """A generator, and what of it is trained."""

    family: Family
    """The generator: its family with its weights."""
    size: Architecture | None
    """Published size of the denoiser, from which `plan` estimates the memory of a rank; None where it is not known."""
    adapter: Literal["lora", "full"]
    rank: int = 64
    """Rank of the LoRA; its alpha is twice that."""
    levels: TimeSampler | None = None
    """Noise levels that it is trained at; None: those that suit its family."""

    @property
    def diffusion(self) -> bool:
        """Whether it predicts noise, and not a velocity."""
        return isinstance(self.family, SD15 | SDXL)

    def trained(self) -> LoRA | Full:
        """What is trained: a LoRA of this rank, or all weights."""
        return LoRA(rank=self.rank, alpha=2.0 * self.rank) if self.adapter == "lora" else Full()

    def times(self) -> TimeSampler:
        """Noise levels: uniform over a diffusion's steps and for video; for rectified flows of pictures as SD3's training.

        ViPO does not say how it draws them: logit-normal times with the scheduler's shift are Salon's choice.
        """
        if self.levels is not None:
            return self.levels
        if isinstance(self.family, SD3 | FLUX | FLUX2Klein | QwenImage | ZImage):
            return LogitNormalTimes(shift="generator")
        return UniformTimes(low=0.0, high=1.0)


def published(
    name: str, *, adapter: Literal["lora", "full"], rank: int = 64, weights: str = "", revision: str = "main"
) -> Trainee:
    """A generator of a published size, with the published weights or those of a folder or repository.

    Raises ConfigError for a path that is not there.
    """
    size, given = ARCHITECTURES[name], weights or PUBLISHED[name]
    if Path(given).is_dir():
        return Trainee(size.family(weights=Folder(path=given)), size, adapter, rank)
    if given.startswith(("/", ".", "~")) or given.count("/") != 1:
        raise ConfigError(f"--weights {given}: no such folder, and no hub id (OWNER/NAME); give one of both")
    return Trainee(size.family(weights=Hub(repo=given, revision=revision)), size, adapter, rank)


def family_of(weights: Weights, *, size: str | None, flag: str) -> tuple[Family, Architecture | None]:
    """The family of a generator's weights, and its published size where that is known.

    A folder says what it holds; a repository is known where it is a published one, and otherwise by `size`, the name of an
    architecture given by the user with `flag`. Raises ConfigError for weights of no family that can be trained.
    """
    if size is not None:
        return ARCHITECTURES[size].family(weights=weights), ARCHITECTURES[size]
    if isinstance(weights, Hub):
        names = [name for name, repo in PUBLISHED.items() if repo == weights.repo]
        if not names:
            raise ConfigError(f"{flag}: {weights.repo} is not a repository that is known here; name its architecture")
        return ARCHITECTURES[names[0]].family(weights=weights), ARCHITECTURES[names[0]]
    if not isinstance(weights, Folder):
        raise ConfigError(f"{flag}: the weights of a stage are no policy of this recipe; give a folder or a repository")
    found = list(_families_in(weights))
    if not found:
        kind = read_index(weights.local).get("_class_name")
        known = ", ".join(sorted({one.family.pipeline_class for one in ARCHITECTURES.values()}))
        raise ConfigError(f"{weights.path} holds a {kind}, which cannot be trained; pipelines that can: {known}")
    return found[0], None


def _families_in(weights: Folder) -> Iterator[Family]:
    """The families of which a folder holds a pipeline."""
    kind = read_index(weights.local).get("_class_name")
    for family in dict.fromkeys(size.family for size in ARCHITECTURES.values()):
        if family.pipeline_class == kind:
            try:
                yield family(weights=weights)
            except ConfigError:
                continue  # another variant of the same class of pipeline
