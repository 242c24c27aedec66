"""Rectified flow: the times to train at (Liu et al., 2023; Esser et al., 2024).

x_t = (1 - t) x_0 + t x_1 with x_1 ~ N(0, I) and t in [0, 1], where 1 is noise; the velocity is v = x_1 - x_0
(`path.FlowPath`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from jaxtyping import Float
from pydantic import Field, model_validator

from infra.config import Config, ConfigError
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


def shift_times(t: Float[torch.Tensor, " count"], *, shift: float) -> Float[torch.Tensor, " count"]:
    """SD3's resolution shift (Esser et al., 2024, eq. 23): shift t / (1 + (shift - 1) t). 1 changes nothing."""
    if shift == 1:
        return t  # exactly: the formula rounds
    return shift * t / (shift * t + (1 - t))


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
