"""SLRM's denoising score enhancement (eqs. 6-9 of the paper), in logs: a reward that keeps its denoiser a denoiser.

With e = mean |v_theta(x_t, t, c) - target|^2 over the elements of a sample, D = exp(-rho e) and S > 0 the head's score, the
enhanced score is S^ = S D, so log S^ = log S - rho e. The loss -log(S^_w^eta / (S^_w^eta + S^_l^eta)) is then exactly
Bradley-Terry on the rewards r = eta log S^. The paper writes a squared norm; here it is a mean over elements, because
rho = ln 4 would otherwise make D vanish for any latent of more than a few elements.

What the prediction is compared with (the target) is one of three, and scores of different targets are not comparable:

* `known`: x_1 - x_0 of data that was noised here (`PathSample.target`; eq. 7 prints x_t - x_0, a misprint of eq. 6's).
  Training and the published tables use it. It holds what no sampler knows, since x_0 and x_1 are known exactly.
* `generator`: the velocity that the generator predicts at x_t itself, which costs one forward pass of the generator.
* `predicted`: the velocity that the generator's previous step implies, without a further pass, see `predicted_target`.

The velocity that the reward's own prediction implies is no target: its distance is 0 everywhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float
from pydantic import Field

from infra.config import Config, ConfigError
from infra.lazy import lazy
from pipelines.algorithms.diffusion.path import spread

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

Target = Literal["known", "generator", "predicted"]
"""What the prediction is compared with: see the top of this file."""

Positive = Literal["exp", "softplus"]
"""How the head's output becomes a positive score S."""

BINS = 10
"""Equal bins of t in [0, 1] in which the mean error of the untouched denoiser is measured."""
USUAL = 0.5
"""The relative error of a denoiser that is as good as the untouched one: D = exp(-rho / 2), which is 1/2 at rho = ln 4."""


class Enhancement(Config):
    """How far a denoising error lowers a score: log S^ = log S - rho e."""

    rho: float = Field(math.log(4), gt=0)
    """Scale of the error; ln 4 is the paper's."""
    scale: Literal["relative", "absolute"] = "relative"
    """"absolute" takes e as it is, as the paper writes it: a mean error of .5 then gives D = .5. "relative" takes
    e / (2 e_bar(t)), with e_bar(t) the untouched denoiser's mean error around that time, so that D is .5 for an error of
    the usual size whatever the latent space: where errors are .01, an absolute D would be 1 for every sample."""

    def penalty(
        self, error: Float[torch.Tensor, " batch"], *, usual: Float[torch.Tensor, " batch"] | None = None
    ) -> Float[torch.Tensor, " batch"]:
        """-log D = rho e, of mean squared errors. `usual`: e_bar at each sample's time, which scale "relative" needs."""
        if self.scale == "absolute":
            return self.rho * error
        if usual is None:
            raise ConfigError("a relative error needs the untouched denoiser's mean error; measure it before training")
        return self.rho * USUAL * error / usual


def log_positive(raw: Float[torch.Tensor, " *shape"], *, form: Positive) -> Float[torch.Tensor, " *shape"]:
    """log S of the head's output in fp32: the output itself for S = exp(raw), log(ln(1 + e^raw)) for softplus.

    The second is computed so that it stays finite where ln(1 + e^raw) rounds to 0; it tends to `raw` there.
    """
    raw = raw.float()
    if form == "exp":
        return raw
    low = raw < -15  # there softplus(raw) = e^raw (1 - e^raw / 2 + ...), whose log is raw to fp32
    return torch.where(low, raw, torch.log(torch.nn.functional.softplus(torch.where(low, torch.zeros_like(raw), raw))))


def bin_of(t: Float[torch.Tensor, " batch"], *, bins: int = BINS) -> torch.Tensor:
    """int64[batch]: which of the equal bins of [0, 1] a time is in; t = 1 is in the last."""
    return (t * bins).long().clamp(0, bins - 1)


def predicted_target(
    x: Float[torch.Tensor, "batch *shape"],
    velocity: Float[torch.Tensor, "batch *shape"],
    *,
    s: Float[torch.Tensor, " batch"],
    candidate: Float[torch.Tensor, "batch *shape"],
    s_next: Float[torch.Tensor, " batch"],
) -> Float[torch.Tensor, "batch *shape"]:
    """The velocity at a candidate x' of the step from s to s' < s that keeps the x_0 predicted at the step's start.

    x_0 = x - s v, and x' lies on the straight path from it at time s': (x' - x_0) / s'. An Euler step has v itself as its
    target. ConfigError where a time does not fall: at s' = s the target would be the velocity of that very point, of which
    a model's own says nothing; and at s' = 0, where the latent is clean and no velocity follows from it.
    """
    if bool((s_next >= s).any()):
        raise ConfigError(
            "a predicted target is that of a later step: s_next must be below s; the target of the same point "
            "is the prediction itself, whose distance is 0; use target 'generator' there"
        )
    if bool((s_next <= 0).any()):
        raise ConfigError(
            "no velocity follows from a clean latent; score the end of a rollout with target 'known', for a "
            "noise drawn here"
        )
    x_0 = x - spread(s, like=x) * velocity
    return (candidate - x_0) / spread(s_next, like=x)
