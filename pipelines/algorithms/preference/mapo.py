"""MaPO: preference without a reference (Hong et al., 2024, "Margin-aware preference optimization").

score(L) = s L / (exp(s L) - 1) falls from 1 at L = 0 to 0, s a signal-to-noise ratio;
loss = L_w - beta_m log sigma(T (score(L_w) - score(L_l))), L the errors E. The winner's own error keeps the model in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float
from pydantic import Field

from infra.lazy import lazy
from pipelines.algorithms.preference.pairwise import Method, PairBatch, PairLosses, Reference, figures

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

SMALL = 0.03  # below, the quotient's gradient loses its digits in fp32 and the series has them all


class MaPO(Method):
    """The winner's error, and a margin between the scores of both."""

    method: Literal["mapo"] = "mapo"
    beta: float = Field(0.1, ge=0, allow_inf_nan=False)
    """beta_m: weight of the margin; 0 is SFT on winners."""
    signal_to_noise: float = Field(0.5, gt=0, allow_inf_nan=False)
    """s: the value of the ratio the scores are taken at."""
    steps: float = Field(1000.0, gt=0, allow_inf_nan=False)
    """T: the scale of the margin, the number of training steps of a diffusion."""

    @property
    def reference(self) -> Reference:
        return "none"

    def losses(self, batch: PairBatch, *, means: Mapping[str, float]) -> PairLosses:
        """E_w + beta ln 2 where both errors are the same."""
        del means
        won, lost = (score(self.signal_to_noise * member.error) for member in (batch.winner, batch.loser))
        margin = self.steps * (won - lost)
        losses = batch.winner.error + self.beta * torch.nn.functional.softplus(-margin)
        return PairLosses(losses=losses, metrics=figures(batch) | {"margin": margin.detach()})


def score(x: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
    """x / (exp(x) - 1) for x >= 0: 1 at 0, 0 at infinity, with the gradient's limits -1/2 and 0."""
    small = x < SMALL
    large = torch.where(small, 1.0, x)  # keeps 0 / 0 out of the gradient of what `where` drops
    near = torch.where(small, x, 0.0)
    quotient = large * torch.exp(-large) / -torch.expm1(-large)
    series = 1 - near / 2 + near.square() / 12 - near.pow(4) / 720
    return torch.where(small, series, quotient)
