"""The interface of a latent reward model: noised latents, their time and their condition in, a score per dimension out.

A reward model is a frozen config with a network on the backbone of a generator. What training leaves is a folder of two
files: `reward.safetensors` has every trained tensor (of the head and of the backbone) and what was measured beforehand,
`reward.json` the config and the identity of the generator. What was not trained is read from the generator itself; the
folder is no second copy of it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from jaxtyping import Float
from pydantic import Field

from infra.config import Config, ConfigError
from infra.identity import canonical
from infra.lazy import lazy
from infra.store.files import refuse_unsafe
from pipelines.models.exact import load_exactly, trained_names
from pipelines.models.families.base import Condition, Family

if TYPE_CHECKING:
    import torch

    from pipelines.models.rewards.network import RewardNetwork
else:
    torch = lazy("torch")

WEIGHTS_FILE, SETTINGS_FILE = "reward.safetensors", "reward.json"


Shown = Literal["x_t", "x_0"]
"""What rewards in pixel space decode: the noised latents, or the clean latents that the generator predicts from them."""


class LatentReward(Protocol):
    """A reward that can be asked at every noise level; differentiable in x_t and the condition."""

    @property
    def reads_target(self) -> bool:
        """Whether `target` must be given: a model whose score contains its own denoising error compares with it."""
        ...

    def __call__(
        self,
        x_t: Float[torch.Tensor, "batch *shape"],
        *,
        t: Float[torch.Tensor, " batch"],
        condition: Condition,
        target: Float[torch.Tensor, "batch *shape"] | None = None,
    ) -> Float[torch.Tensor, "batch dimensions"]:
        """Scores of latents at times t in [0, 1], where 1 is noise; higher is better.

        `target`: what the denoiser should predict at x_t (for flow matching the velocity x_1 - x_0). Models that do not
        read it ignore it.
        """
        ...


class RewardModel(Config, ABC):
    """A kind of latent reward model and its settings."""

    dimensions: tuple[str, ...] = Field(("overall",), min_length=1)
    """Names of the scores, in the order in which the network gives them."""

    @abstractmethod
    def refuse(self, backbone: Family) -> None:
        """Raises ConfigError for a generator that the network cannot stand on; called when a recipe is built."""

    @abstractmethod
    def build(self, backbone: Family, *, device: torch.device | str) -> RewardNetwork:
        """An untrained network on the backbone, in single precision; what is to be trained requires a gradient."""

    def save(self, trained: Mapping[str, torch.Tensor], folder: Path, *, backbone: Family) -> None:
        """Writes the two files of a trained model; `trained`: its parameters, whole and by name, and its constants."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in trained.items()}, folder / WEIGHTS_FILE)
        settings = {"model": canonical(self), "backbone": canonical(backbone)}
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")

    def loaded(self, folder: Path, *, backbone: Family, device: torch.device | str) -> RewardNetwork:
        """What `save` wrote, frozen; raises ConfigError for other settings, another generator, or other tensors."""
        from safetensors.torch import load_file

        refuse_unsafe(folder)
        if not (folder / SETTINGS_FILE).is_file():
            raise ConfigError(f"{folder / SETTINGS_FILE} does not exist; give the folder that stage reward wrote")
        stored = json.loads((folder / SETTINGS_FILE).read_text())
        for name, own in (("model", canonical(self)), ("backbone", canonical(backbone))):
            if stored.get(name) != own:
                raise ConfigError(f"{folder} was trained with {name} {stored.get(name)}, not {own}; make them agree")
        network = self.build(backbone, device=device)
        tensors = load_file(folder / WEIGHTS_FILE)
        names = [*trained_names(network), *network.constants]
        load_exactly(network, tensors, names=names, source=str(folder / WEIGHTS_FILE))
        network.requires_grad_(False).eval()
        return network
