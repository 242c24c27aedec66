"""Paths between data and noise for every kind of prediction: a point, the target there, and the error of a prediction.

Time t is in [0, 1] and 1 is noise, for flow matching and for diffusion alike. Errors are means over all dimensions but
the batch, in fp32: with sums instead, divide beta by the number of elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Shaped

from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

PURE_NOISE = 1 - 1e-5
"""From this time on a latent counts as pure noise: some schedulers begin a rounding error below 1 (UniPC at 0.999999)."""
TRAINING_STEPS = 1000  # flow denoisers take 1000 t, the scale of diffusion's integer steps


@dataclass(frozen=True)
class PathSample:
    """A point of a path with the prediction that the model should make there."""

    x_t: Float[torch.Tensor, "batch *shape"]
    target: Float[torch.Tensor, "batch *shape"]
    """The velocity, the noise, or v: the path's `prediction`."""
    t: Float[torch.Tensor, " batch"]
    """Time in [0, 1]; 1 is noise. Keep it in fp32: bf16 has three digits."""


@runtime_checkable
class NoisePath(Protocol):
    """How a generator noises data, and the times and targets that go with it."""

    @property
    def prediction(self) -> str:
        """flow (velocity), epsilon (noise) or v_prediction."""
        ...

    def sample(
        self,
        x_0: Float[torch.Tensor, "batch *shape"],
        *,
        noise: Float[torch.Tensor, "batch *shape"],
        t: Float[torch.Tensor, " batch"],
    ) -> PathSample:
        """The point at time t between `x_0` and `noise`. Winner and loser of a pair share `noise` and `t`."""
        ...

    def timesteps(self, t: Float[torch.Tensor, " batch"]) -> Shaped[torch.Tensor, " batch"]:
        """The denoiser's own time input for each t."""
        ...

    def clean(
        self,
        prediction: Float[torch.Tensor, "batch *shape"],
        *,
        x_t: Float[torch.Tensor, "batch *shape"],
        t: Float[torch.Tensor, " batch"],
    ) -> Float[torch.Tensor, "batch *shape"]:
        """The x_0 that a prediction at x_t and time t implies."""
        ...


@dataclass(frozen=True)
class FlowPath:
    """The straight path of rectified flow: x_t = (1 - t) x_0 + t noise, with velocity noise - x_0 (Liu et al., 2023)."""

    prediction: Literal["flow"] = "flow"

    def sample(
        self,
        x_0: Float[torch.Tensor, "batch *shape"],
        *,
        noise: Float[torch.Tensor, "batch *shape"],
        t: Float[torch.Tensor, " batch"],
    ) -> PathSample:
        """The point (1 - t) x_0 + t noise, in the dtype of `x_0`, and its velocity."""
        times = spread(t, like=x_0)
        x_t = (1 - times) * x_0 + times * noise
        return PathSample(x_t=x_t.to(x_0.dtype), target=noise - x_0, t=t)

    def timesteps(self, t: Float[torch.Tensor, " batch"]) -> Float[torch.Tensor, " batch"]:
        """1000 t: the timestep that a flow model's denoiser is given."""
        return TRAINING_STEPS * t

    def clean(
        self,
        prediction: Float[torch.Tensor, "batch *shape"],
        *,
        x_t: Float[torch.Tensor, "batch *shape"],
        t: Float[torch.Tensor, " batch"],
    ) -> Float[torch.Tensor, "batch *shape"]:
        """x_t - t v."""
        return x_t - spread(t, like=x_t) * prediction


def per_sample_error(
    prediction: Float[torch.Tensor, "batch *shape"], *, target: Float[torch.Tensor, "batch *shape"]
) -> Float[torch.Tensor, " batch"]:
    """E: the mean squared error of each sample over all other dimensions (a video's time and width too), in fp32."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def spread(
    values: Shaped[torch.Tensor, " batch"], *, like: Float[torch.Tensor, "batch *shape"]
) -> Shaped[torch.Tensor, "batch *ones"]:
    """One value per sample as a factor of every element of its sample, in its own dtype."""
    return values.view(-1, *[1] * (like.dim() - 1))
