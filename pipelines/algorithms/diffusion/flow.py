"""Rectified flow: the straight path from data to noise, its velocity, and Euler's steps back (Liu et al., 2023).

x_t = (1 - t) x_0 + t x_1 with x_1 ~ N(0, I) and t in [0, 1], where 1 is noise; the velocity is v = x_1 - x_0.
Sampling steps from s to s' < s, so ds < 0. Errors are means over all dimensions but the batch, in fp32: with sums
instead, divide beta by the number of elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from jaxtyping import Float
from pydantic import Field, model_validator

from infra.config import Config, ConfigError
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@dataclass(frozen=True)
class PathSample:
    """A point of the path with what the model should answer there."""

    x_t: Float[torch.Tensor, "batch *shape"]
    velocity: Float[torch.Tensor, "batch *shape"]
    """Target: x_1 - x_0."""
    t: Float[torch.Tensor, " batch"]
    """Time in [0, 1]; 1 is noise."""


def path_sample(
    x_0: Float[torch.Tensor, "batch *shape"],
    *,
    noise: Float[torch.Tensor, "batch *shape"],
    t: Float[torch.Tensor, " batch"],
) -> PathSample:
    """The point x_t = (1 - t) x_0 + t noise and its velocity. Winner and loser of a pair share `noise` and `t`."""
    times = _per_sample(t, like=x_0)
    return PathSample(x_t=(1 - times) * x_0 + times * noise, velocity=noise - x_0, t=t)


def data_of(
    x_t: Float[torch.Tensor, "batch *shape"],
    *,
    velocity: Float[torch.Tensor, "batch *shape"],
    t: Float[torch.Tensor, " batch"],
) -> Float[torch.Tensor, "batch *shape"]:
    """The data a velocity points to: x_0 = x_t - t v."""
    return x_t - _per_sample(t, like=x_t) * velocity


def noise_of(
    x_t: Float[torch.Tensor, "batch *shape"],
    *,
    velocity: Float[torch.Tensor, "batch *shape"],
    t: Float[torch.Tensor, " batch"],
) -> Float[torch.Tensor, "batch *shape"]:
    """The noise a velocity comes from: x_1 = x_t + (1 - t) v."""
    return x_t + (1 - _per_sample(t, like=x_t)) * velocity


def per_sample_error(
    prediction: Float[torch.Tensor, "batch *shape"], *, target: Float[torch.Tensor, "batch *shape"]
) -> Float[torch.Tensor, " batch"]:
    """E: the mean squared error of each sample over all other dimensions (a video's time and width too), in fp32."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


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
    return shift * t / (shift * t + (1 - t))


def sigma_grid(steps: int, *, shift: float = 1.0) -> Float[torch.Tensor, " points"]:
    """The `steps` + 1 times of a sampler, from 1 (noise) down to exactly 0, in fp64."""
    return shift_times(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64), shift=shift)


class UniformTimes(Config):
    """Training times drawn uniformly."""

    kind: Literal["uniform"] = "uniform"
    low: float = Field(0.02, ge=0, le=1)
    """Earliest time; a little above 0, where a velocity says nothing about the picture."""
    high: float = Field(0.98, ge=0, le=1)
    """Latest time; a little below 1, where every picture looks alike."""

    @model_validator(mode="after")
    def _ordered(self) -> UniformTimes:
        if self.low > self.high:
            raise ConfigError(f"UniformTimes: low = {self.low} is above high = {self.high}; swap them")
        return self

    def sample(self, count: int, *, generator: torch.Generator) -> Float[torch.Tensor, " count"]:
        """`count` times in [low, high], fp32, on the generator's device."""
        draw = torch.rand(count, generator=generator, device=generator.device)
        return self.low + (self.high - self.low) * draw


class LogitNormalTimes(Config):
    """Training times whose logit is normal, which favours the middle of the path (Esser et al., 2024, eq. 19)."""

    kind: Literal["logit_normal"] = "logit_normal"
    mean: float = 0.0
    """Mean of logit(t); positive moves towards noise."""
    std: float = Field(1.0, gt=0)
    """Standard deviation of logit(t)."""
    shift: float = Field(1.0, gt=0)
    """SD3's resolution shift, applied after the draw; 3 for 1024 px, 1 for none."""

    def sample(self, count: int, *, generator: torch.Generator) -> Float[torch.Tensor, " count"]:
        """`count` times in (0, 1), fp32, on the generator's device."""
        draw = torch.randn(count, generator=generator, device=generator.device)
        return shift_times(torch.sigmoid(self.mean + self.std * draw), shift=self.shift)


TimeSampler = Annotated[UniformTimes | LogitNormalTimes, Field(discriminator="kind")]
"""How training times are drawn: the type of an option."""


def _per_sample(t: torch.Tensor, *, like: torch.Tensor) -> torch.Tensor:
    """t as a factor of every element of its sample, in the dtype of the sample."""
    return t.to(like.dtype).view(-1, *[1] * (like.dim() - 1))
