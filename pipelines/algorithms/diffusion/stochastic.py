"""One stochastic step of a sampler: the Gaussian that a policy draws its next latent from, its log-probability and its KL.

Flow matching (Liu et al., 2025, Flow-GRPO, eq. 9; SLRM + TAPO, eq. 21): with x_t = (1 - t) x_0 + t x_1, the velocity v and
dt = s' - s < 0,

    mean = x (1 + std^2 / (2 s) dt) + v (1 + std^2 (1 - s) / (2 s)) dt,    sd = std sqrt(-dt),    x' = mean + sd z.

Everything is taken at the start s of the step. (TAPO's eq. 22 prints the time of the step's end in the drift, while x and v
are at its start.) Flow-SDE has std = a sqrt(s / (1 - s)), where at s = 1 the denominator uses the next time, 1 - s';
DanceGRPO has a constant std. On a table of noise levels the stochastic step is DDIM with eta > 0 (Song et al.,
2021, eq. 12 and 16).

Without noise a step of flow matching is Euler's, x + v dt, to the last bit. It has no density, so it is never learnt from.
Arithmetic is in the dtype of x and the prediction: give fp32.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from jaxtyping import Float, Int
from pydantic import Field

from infra.config import Config, ConfigError
from infra.lazy import lazy
from pipelines.algorithms.diffusion.ddpm import DiffusionPath
from pipelines.algorithms.diffusion.path import PURE_NOISE, NoisePath, spread

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@dataclass(frozen=True, eq=False)
class Move:
    """N(mean, sd^2 I) over the next latent of every state of a batch."""

    mean: Float[torch.Tensor, "batch *shape"]
    sd: Float[torch.Tensor, " batch"]
    """Standard deviation of each element; 0 where the step has no noise."""
    span: Float[torch.Tensor, " batch"]
    """s - s', the length of the step: above 0."""

    def point(self, z: Float[torch.Tensor, "batch *shape"]) -> Float[torch.Tensor, "batch *shape"]:
        """mean + sd z for standard normal z."""
        return self.mean + spread(self.sd, like=z) * z

    def take(self, index: Int[torch.Tensor, " picked"]) -> Move:
        """The Gaussians of the states at `index`, which may name one state several times (once per candidate)."""
        return Move(mean=self.mean[index], sd=self.sd[index], span=self.span[index])


class StochasticStep(Config, ABC):
    """How far a sampler's step spreads, and its Gaussian."""

    @abstractmethod
    def move(
        self,
        x: Float[torch.Tensor, "batch *shape"],
        prediction: Float[torch.Tensor, "batch *shape"],
        *,
        s: Float[torch.Tensor, " batch"],
        s_next: Float[torch.Tensor, " batch"],
        path: NoisePath,
    ) -> Move:
        """The Gaussian of the latent at time `s_next`, given x at time `s` > `s_next`; 1 is noise.

        `prediction`: the denoiser's, after guidance. `path`: the generator's own; ConfigError for a path of another kind.
        """

    @property
    @abstractmethod
    def still(self) -> StochasticStep:
        """The same step without noise."""


class FlowStep(StochasticStep):
    """A stochastic step along the straight path of rectified flow; subclasses say how large std is."""

    @abstractmethod
    def std(
        self, s: Float[torch.Tensor, " batch"], *, s_next: Float[torch.Tensor, " batch"]
    ) -> Float[torch.Tensor, " batch"]:
        """Noise per square root of time."""

    @property
    @abstractmethod
    def level(self) -> float:
        """The option that scales std; 0 is Euler's step."""

    def move(
        self,
        x: Float[torch.Tensor, "batch *shape"],
        prediction: Float[torch.Tensor, "batch *shape"],
        *,
        s: Float[torch.Tensor, " batch"],
        s_next: Float[torch.Tensor, " batch"],
        path: NoisePath,
    ) -> Move:
        """See `StochasticStep`."""
        if path.prediction != "flow":
            raise ConfigError(
                f"{type(self).__name__} steps along a flow, this generator predicts {path.prediction}; use DDIM"
            )
        dt = s_next - s
        if not self.level:
            return Move(mean=x + spread(dt, like=x) * prediction, sd=torch.zeros_like(s), span=-dt)
        std = self.std(s, s_next=s_next)
        drift = std.square() / (2 * s)
        mean = x * spread(1 + drift * dt, like=x) + prediction * spread((1 + drift * (1 - s)) * dt, like=x)
        return Move(mean=mean, sd=std * (-dt).sqrt(), span=-dt)


class FlowSDE(FlowStep):
    """std = a sqrt(s / (1 - s)): the noise that leaves the marginals of exact flow as they are for small steps.

    The first step from s = 1 injects std a however fine the grid is, and inflates the variance for good.
    """

    kind: Literal["flow_sde"] = "flow_sde"
    a: float = Field(0.7, ge=0, allow_inf_nan=False)
    """Noise level; 0.7 in Flow-GRPO and TAPO (whose "sigma_t is set to 0.7" is read as this, since it follows it)."""

    @property
    def level(self) -> float:
        return self.a

    @property
    def still(self) -> FlowSDE:
        return FlowSDE(a=0.0)

    def std(
        self, s: Float[torch.Tensor, " batch"], *, s_next: Float[torch.Tensor, " batch"]
    ) -> Float[torch.Tensor, " batch"]:
        """a sqrt(s / (1 - s)), with the next time in the denominator where s is pure noise."""
        return self.a * (s / (1 - torch.where(s > PURE_NOISE, s_next, s))).sqrt()


class Dance(FlowStep):
    """std = eta at every time (Xue et al., 2025, DanceGRPO). Near the data noisier than Flow-SDE at the same number."""

    kind: Literal["dance"] = "dance"
    eta: float = Field(0.3, ge=0, allow_inf_nan=False)
    """Noise level; 0.3 for pictures, 0.25 for clips in DanceGRPO."""

    @property
    def level(self) -> float:
        return self.eta

    @property
    def still(self) -> Dance:
        return Dance(eta=0.0)

    def std(
        self, s: Float[torch.Tensor, " batch"], *, s_next: Float[torch.Tensor, " batch"]
    ) -> Float[torch.Tensor, " batch"]:
        """eta."""
        del s_next
        return torch.full_like(s, self.eta)


class DDIM(StochasticStep):
    """DDIM on a table of noise levels; eta = 1 is what SPO and LPO train with (Stable Diffusion 1.5, SDXL)."""

    kind: Literal["ddim"] = "ddim"
    eta: float = Field(1.0, ge=0, le=1)
    """Share of the ancestral noise; 0 is the deterministic sampler."""

    @property
    def still(self) -> DDIM:
        return DDIM(eta=0.0)

    def move(
        self,
        x: Float[torch.Tensor, "batch *shape"],
        prediction: Float[torch.Tensor, "batch *shape"],
        *,
        s: Float[torch.Tensor, " batch"],
        s_next: Float[torch.Tensor, " batch"],
        path: NoisePath,
    ) -> Move:
        """sd = eta sqrt((1 - a') / (1 - a)) sqrt(1 - a / a'), with a = alphas_cumprod at s and a' at s_next."""
        if not isinstance(path, DiffusionPath):
            raise ConfigError(f"DDIM steps on a table of noise levels, this generator is a {path.prediction}; use FlowSDE")
        start, end = path.share(s), path.share(s_next)
        signal, level = spread(start.sqrt(), like=x), spread((1 - start).sqrt(), like=x)
        if path.prediction == "epsilon":
            data, noise = (x - level * prediction) / signal, prediction
        else:
            data, noise = signal * x - level * prediction, signal * prediction + level * x
        sd = self.eta * ((1 - end) / (1 - start)).sqrt() * (1 - start / end).clamp(min=0).sqrt()
        direction = (1 - end - sd.square()).clamp(min=0).sqrt()
        mean = spread(end.sqrt(), like=x) * data + spread(direction, like=x) * noise
        return Move(mean=mean, sd=sd, span=s - s_next)


AnyStep = Annotated[FlowSDE | Dance | DDIM, Field(discriminator="kind")]
"""A stochastic step: the type of an option."""


def log_prob(x_next: Float[torch.Tensor, "batch *shape"], *, move: Move) -> Float[torch.Tensor, " batch"]:
    """Mean over elements of the Gaussian's log-density at x', in fp32; x' carries no gradient.

    The mean of -(x' - mean)^2 / (2 sd^2) - ln sd - ln(2 pi) / 2. Since it is a mean, exp(log_prob - old) is the D-th root
    of the true ratio, for D elements; clip ranges and beta are on that scale. ValueError for a step without noise.
    """
    sd = move.sd.float()
    if bool((sd <= 0).any()):
        raise ValueError("a step without noise has no density; learn from stochastic steps only")
    squares = (x_next.detach().float() - move.mean.float()).square().flatten(1).mean(1)
    return -squares / (2 * sd.square()) - sd.log() - 0.5 * math.log(2 * math.pi)


def kl(
    move: Move, *, reference: Float[torch.Tensor, "batch *shape"], without_dt: bool = False
) -> Float[torch.Tensor, " batch"]:
    """KL(policy || reference) per element at one state: mean (mean - reference)^2 / (2 sd^2), in fp32.

    `reference`: the mean of the reference's Gaussian there, which has the same sd; no gradient flows into it. `without_dt`
    divides by std^2 = sd^2 / (s - s') in place of sd^2, as the public code of Flow-GRPO does, which is no KL.
    """
    squares = (move.mean.float() - reference.detach().float()).square().flatten(1).mean(1)
    exact = squares / (2 * move.sd.float().square())
    return exact * move.span.float() if without_dt else exact
