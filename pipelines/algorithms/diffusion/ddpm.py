"""Diffusion with a table of noise levels (Ho et al., 2020), predicting the noise or v (Salimans & Ho, 2022).

x_t = sqrt(a) x_0 + sqrt(1 - a) noise, a = alphas_cumprod[k] at the integer step k = min(floor(t T), T - 1) of a time t in
[0, 1]; epsilon is the noise, v = sqrt(a) noise - sqrt(1 - a) x_0. Every step is as likely as another where t is uniform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float, Int

from infra.lazy import lazy
from pipelines.algorithms.diffusion.path import PathSample, spread

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@dataclass(frozen=True, eq=False)
class DiffusionPath:
    """The path of a generator trained on a table of noise levels (Stable Diffusion 1.5, SDXL)."""

    alphas_cumprod: Float[torch.Tensor, " steps"]
    """Share of the data's variance left at each step, falling: a scheduler's own table."""
    prediction: Literal["epsilon", "v_prediction"]
    final: float = 1.0
    """What a sampler takes alphas_cumprod for at t = 0, behind the table: 1, or the table's first (`set_alpha_to_one`)."""

    def sample(
        self,
        x_0: Float[torch.Tensor, "batch *shape"],
        *,
        noise: Float[torch.Tensor, "batch *shape"],
        t: Float[torch.Tensor, " batch"],
    ) -> PathSample:
        """The point at step k, in the dtype of `x_0`, and the noise or v."""
        share = self.alphas_cumprod.to(t.device)[self.timesteps(t)]
        signal, level = spread(share.sqrt(), like=x_0), spread((1 - share).sqrt(), like=x_0)
        x_t = (signal * x_0 + level * noise).to(x_0.dtype)
        target = noise if self.prediction == "epsilon" else signal * noise - level * x_0
        return PathSample(x_t=x_t, target=target, t=t)

    def timesteps(self, t: Float[torch.Tensor, " batch"]) -> Int[torch.Tensor, " batch"]:
        """The integer step k in [0, T) of a time in [0, 1]."""
        steps = len(self.alphas_cumprod)
        return (t * steps).floor().long().clamp(max=steps - 1)

    def clean(
        self,
        prediction: Float[torch.Tensor, "batch *shape"],
        *,
        x_t: Float[torch.Tensor, "batch *shape"],
        t: Float[torch.Tensor, " batch"],
    ) -> Float[torch.Tensor, "batch *shape"]:
        """(x_t - sqrt(1 - a) epsilon) / sqrt(a), or sqrt(a) x_t - sqrt(1 - a) v."""
        share = self.alphas_cumprod.to(t.device)[self.timesteps(t)]
        signal, level = spread(share.sqrt(), like=x_t), spread((1 - share).sqrt(), like=x_t)
        if self.prediction == "epsilon":
            return (x_t - level * prediction) / signal
        return signal * x_t - level * prediction

    def share(self, t: Float[torch.Tensor, " batch"]) -> Float[torch.Tensor, " batch"]:
        """alphas_cumprod at each time; `final` at t = 0, where a sampler ends."""
        table = self.alphas_cumprod.to(t.device)[self.timesteps(t)]
        return torch.where(t > 0, table, self.final)
