"""Flow-NRG: a reward of noised latents guides the velocity at inference (Liu et al., 2025, VideoAlign, section 4.4).

v~ = v - scale t / (1 - t) grad_x sum_d w_d r_d(x_t, t, c), after classifier-free guidance. The dimensions'
weights are chosen at inference and not normalised. At t = 1 there is no guidance, and t / (1 - t) is limited near it. On
Gaussian data N(0, s2) with the reward a x_0 the guided samples have the mean scale w a s2 and the variance s2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from pydantic import Field

from infra.config import Config, ConfigError
from infra.lazy import lazy
from pipelines.algorithms.diffusion.path import PURE_NOISE, spread

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@dataclass(frozen=True, eq=False)
class Guided:
    """A guided velocity, and where the guidance was less than the formula's."""

    velocity: Float[torch.Tensor, "batch *shape"]
    clamped: Bool[torch.Tensor, " batch"]
    """Where t / (1 - t) was above the limit; at t = 1, where there is no guidance, too."""


class RewardGuidance(Config):
    """How strongly a reward guides."""

    scale: float = Field(100.0, ge=0, allow_inf_nan=False)
    """w of the paper, which takes 100; 0 changes no bit."""
    limit: float = Field(9.0, gt=0, allow_inf_nan=False)
    """Largest t / (1 - t): 9 is reached at t = 0.9. The paper gives no number."""

    def factor(self, t: Float[torch.Tensor, " batch"]) -> Float[torch.Tensor, " batch"]:
        """scale t / (1 - t), limited; 0 where t is pure noise."""
        odds = (t / (1 - t)).clamp(max=self.limit)
        return self.scale * torch.where(t > PURE_NOISE, 0.0, odds)

    def velocity(
        self,
        velocity: Float[torch.Tensor, "batch *shape"],
        *,
        gradient: Float[torch.Tensor, "batch *shape"],
        t: Float[torch.Tensor, " batch"],
    ) -> Guided:
        """v - factor(t) gradient; `gradient` is that of the weighted reward with respect to x_t, per sample."""
        clamped = t / (1 - t) > self.limit
        if not self.scale:
            return Guided(velocity=velocity, clamped=clamped)
        return Guided(velocity=velocity - spread(self.factor(t), like=velocity) * gradient, clamped=clamped)


def dimension_weights(weights: Mapping[str, float], *, dimensions: tuple[str, ...]) -> tuple[float, ...]:
    """Weights in the order of a reward's dimensions, 0 for those not named; none named: the mean of all.

    ConfigError for a dimension that the reward does not have.
    """
    if unknown := sorted(set(weights) - set(dimensions)):
        raise ConfigError(f"the reward has no dimension {unknown[0]!r}; it has {', '.join(dimensions)}")
    if not weights:
        return tuple(1 / len(dimensions) for _ in dimensions)
    return tuple(weights.get(name, 0.0) for name in dimensions)


def weighted(
    scores: Float[torch.Tensor, "batch dimensions"], *, weights: tuple[float, ...]
) -> Float[torch.Tensor, " batch"]:
    """sum_d w_d r_d in fp32; dimensions of weight 0 are left out, so that an unknown score there does no harm."""
    chosen = [place for place, weight in enumerate(weights) if weight]
    if not chosen:
        return torch.zeros(len(scores), device=scores.device)
    factors = torch.tensor([weights[place] for place in chosen], device=scores.device)
    return (scores[:, chosen].float() * factors).sum(1)
