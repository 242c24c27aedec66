"""Flow-DPO with a constant or a time-dependent KL weight (Liu et al., 2025, "Improving video generation with human
feedback", eq. 6).

The derivation gives beta_t = beta (1 - t)^2; the paper trains with a constant beta, which does not push the policy to
overfit at high noise, and so does the default here. The same function on epsilon predictions is Diffusion-DPO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jaxtyping import Float
from pydantic import Field

from infra.lazy import lazy
from pipelines.algorithms.preference.pairwise import PairErrors, PairLosses, PairMethod, inside, pair_losses

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class FlowDPO(PairMethod):
    """-log sigma(inside - margin) for every pair that has a winner."""

    method: Literal["flow_dpo"] = "flow_dpo"
    beta: float = Field(500.0, gt=0)
    """KL weight on mean errors: higher stays closer to the reference. One public implementation uses 100."""
    weighting: Literal["constant", "(1-t)^2"] = "constant"
    """How beta depends on time: constant (the paper's choice), or as derived, vanishing at noise (its ablation)."""

    def losses(self, errors: PairErrors, *, margin: Float[torch.Tensor, " pairs"]) -> PairLosses:
        """The loss of every pair; ln 2 where the policy is the reference and the margin 0."""
        reward_margin = inside(errors, beta=self.beta_at(errors.t))
        return pair_losses(torch.nn.functional.softplus(margin - reward_margin), errors=errors, margin=reward_margin)

    def beta_at(self, t: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
        """beta of each pair at its time in [0, 1]."""
        if self.weighting == "constant":
            return torch.full_like(t, self.beta)
        return self.beta * (1 - t).square()
