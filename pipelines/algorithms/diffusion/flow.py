"""Rectified flow: data and noise from a velocity, Euler's steps, and the times to train at (Liu et al., 2023).

x_t = (1 - t) x_0 + t x_1 with x_1 ~ N(0, I) and t in [0, 1], where 1 is noise; the velocity is v = x_1 - x_0
(`path.FlowPath`). Sampling steps from s to s' < s, so ds < 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from jaxtyping import Float
from pydantic import Field, model_validator

from infra.config import Config, ConfigError
from infra.lazy import lazy
from pipelines.algorithms.diffusion.path import spread

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


def data_of(
    x_t: Float[torch.Tensor, "batch *shape"],
    *,
    velocity: Float[torch.Tensor, "batch *shape"],
    t: Float[torch.Tensor, " batch"],
) -> Float[torch.Tensor, "batch *shape"]:
    """The data a velocity points to: x_0 = x_t - t v."""
    return x_t - spread(t, like=x_t) * velocity


def noise_of(
    x_t: Float[torch.Tensor, "batch *shape"],
    *,
    velocity: Float[torch.Tensor, "batch *shape"],
    t: Float[torch.Tensor, " batch"],
) -> Float[torch.Tensor, "batch *shape"]:
    """The noise a velocity comes from: x_1 = x_t + (1 - t) v."""
    return x_t + (1 - spread(t, like=x_t)) * velocity


def euler_step(
    x: Float[torch.Tensor, "batch *shape"],
    *,
    velocity: Float[torch.Tensor, "batch *shape"],
    s: float,
    s_next: float,
) -> Float[torch.Tensor, "batch *shape"]:
    """One step of the ODE from time s to s_next < s: x + v (s_next - s)."""
    return x + velocity * (s_next - s)


def shift_times(t: Float[torch.Tensor, " count"], *, shift: float) -> Float[torch.Tensor, " count"]:
    """SD3's resolution shift (Esser et al., 2024, eq. 23): shift t / (1 + (shift - 1) t). 1 changes nothing."""
    if shift == 1:
        return t  # exactly: the formula rounds
    return shift * t / (shift * t + (1 - t))


def sigma_grid(steps: int, *, shift: float = 1.0) -> Float[torch.Tensor, " points"]:
    """The `steps` + 1 times of a sampler, from 1 (noise) down to exactly 0, in fp64."""
    return shift_times(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64), shift=shift)


Shift = Annotated[float, Field(gt=0)] | Literal["generator"]
"""A resolution shift of training times: a factor, or the one of the generator's own scheduler."""


class UniformTimes(Config):
    """Training times drawn uniformly."""

    kind: Literal["uniform"] = "uniform"
    low: float = Field(0.02, ge=0, le=1)
    """Earliest time; a little above 0, where the velocity carries no information about the picture."""
    high: float = Field(0.98, ge=0, le=1)
    """Latest time; a little below 1, where every picture looks alike."""
    shift: Shift = 1.0
    """Applied after the draw, so to `low` and `high` too: 1 for none; "generator" follows its scheduler (SD3: 3)."""

    @model_validator(mode="after")
    def _ordered(self) -> UniformTimes:
        if self.low > self.high:
            raise ConfigError(f"UniformTimes: low = {self.low} is above high = {self.high}; swap them")
        return self

    def sample(self, count: int, *, generator: torch.Generator, own_shift: float = 1.0) -> Float[torch.Tensor, " count"]:
        """`count` times, fp32, on the generator's device; `own_shift` is what shift = "generator" stands for."""
        draw = self.low + (self.high - self.low) * torch.rand(count, generator=generator, device=generator.device)
        return shift_times(draw, shift=own_shift if self.shift == "generator" else self.shift)


class LogitNormalTimes(Config):
    """Training times whose logit is normal, which favours the middle of the path (Esser et al., 2024, eq. 19)."""

    kind: Literal["logit_normal"] = "logit_normal"
    mean: float = 0.0
    """Mean of logit(t); positive moves towards noise."""
    std: float = Field(1.0, gt=0)
    """Standard deviation of logit(t)."""
    shift: Shift = 1.0
    """Applied after the draw: 1 for none; "generator" follows its scheduler (SD3: 3)."""

    def sample(self, count: int, *, generator: torch.Generator, own_shift: float = 1.0) -> Float[torch.Tensor, " count"]:
        """`count` times in (0, 1), fp32, on the generator's device; `own_shift` is what shift = "generator" stands for."""
        draw = torch.randn(count, generator=generator, device=generator.device)
        times = torch.sigmoid(self.mean + self.std * draw)
        return shift_times(times, shift=own_shift if self.shift == "generator" else self.shift)


TimeSampler = Annotated[UniformTimes | LogitNormalTimes, Field(discriminator="kind")]
"""How training times are drawn: the type of an option."""
