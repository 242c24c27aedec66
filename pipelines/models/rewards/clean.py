"""Clean pictures and clips scored by a latent reward model: encoded, noised to one time, scored, averaged over noises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from infra.config import ConfigError
from infra.identity import seed_of
from infra.lazy import lazy
from pipelines.models.families.base import Condition, Family
from pipelines.models.rewards.reward import RewardModel

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class CleanScores:
    """A trained reward model with the VAE and the text encoders of its generator.

    Each picture is scored by itself, and the noises are fixed by its prompt, so that two pictures of one prompt are
    compared under the same noises and a score depends on its picture and prompt alone.
    """

    def __init__(
        self, model: RewardModel, folder: Path, *, backbone: Family, t: float, noises: int, device: torch.device | str
    ) -> None:
        """`t`: the time to noise to, in [0, 1); 0 scores the clean latents themselves, where one pass is enough."""
        self.network = model.loaded(folder, backbone=backbone, device=device)
        loaded = {"device": device, "dtype": torch.float32}
        self.encoders = backbone.load(parts="encoders", **loaded)
        self.vae = backbone.load(parts="decoder", **loaded)
        self.t, self.noises, self.device = t, noises if t else 1, torch.device(device)
        self.conditions: dict[str, Condition] = {}

    def score(self, pixels: Sequence[np.ndarray], texts: Sequence[str]) -> Float[np.ndarray, "samples dimensions"]:
        """Scores of uint8[f, h, w, 3] each; ConfigError where pictures and texts are not as many."""
        if len(pixels) != len(texts):
            raise ConfigError(f"{len(pixels)} pictures but {len(texts)} texts; give each picture its prompt")
        return np.stack([self._one(picture, text) for picture, text in zip(pixels, texts, strict=True)])

    def _one(self, picture: np.ndarray, text: str) -> Float[np.ndarray, " dimensions"]:
        latent = self.vae.encode_pixels(picture[None]).float()
        noise = torch.stack([_noise(latent.shape[1:], text, number) for number in range(self.noises)])
        times = torch.full((self.noises,), self.t)
        sample = self.network.generator.path.sample(latent.expand(self.noises, *latent.shape[1:]), noise=noise, t=times)
        condition = self._condition(text)
        batch = {name: value.expand(self.noises, *value.shape).to(self.device) for name, value in condition.items()}
        with torch.no_grad():
            x_t, target = sample.x_t.to(self.device), sample.target.to(self.device)
            scores = self.network(x_t, t=times.to(self.device), condition=batch, target=target)
        return scores.float().mean(0).cpu().numpy()

    def _condition(self, text: str) -> Condition:
        if text not in self.conditions:
            self.conditions = {text: self.encoders.encode_texts([text])[0]}  # neighbours share a prompt
        return self.conditions[text]


def _noise(shape: Sequence[int], text: str, number: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed_of("reward noise", text, number)))
