"""Flow-DPO with a constant or a time-dependent KL weight (Liu et al., 2025, "Improving video generation with human
feedback", eq. 6).

The derivation gives beta_t = beta (1 - t)^2; the paper trains with a constant beta, which does not push the policy to
overfit at high noise, and so does the default here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field

from infra.lazy import lazy
from pipelines.algorithms.preference.dpo import DPO

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class FlowDPO(DPO):
    """DPO on the errors of velocities.

    One pair at t = 0.5: the policy's error on the winner is 0.01 below the reference's, that on the loser is as large. The
    preference logit is beta / 2 times the difference, 250 * 0.01 = 2.5, and the loss -log sigma(2.5):

    >>> from pipelines.algorithms.preference.pairwise import Member, PairBatch
    >>> def member(error):
    ...     return Member(torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor([error]), None, reference_error=torch.ones(1))
    >>> unknown, t = torch.full((1,), torch.nan), torch.tensor([0.5])
    >>> batch = PairBatch(member(0.99), member(1.0), t, unknown, unknown, torch.tensor([False]), unknown, unknown)
    >>> round(FlowDPO(beta=500).losses(batch, means={}).losses.item(), 3)
    0.079
    >>> round(FlowDPO(beta=500, weighting="(1-t)^2").losses(batch, means={}).losses.item(), 3)
    0.429
    """

    predictions: ClassVar[frozenset[str]] = frozenset({"flow"})

    method: Literal["flow_dpo"] = "flow_dpo"
    beta: float = Field(500.0, gt=0, allow_inf_nan=False)
    """KL weight on mean errors: higher stays closer to the reference. One public implementation uses 100."""
    weighting: Literal["constant", "(1-t)^2"] = "constant"
    """How beta depends on time: constant (the paper's choice), or as derived, vanishing at noise (its ablation)."""

    def beta_at(self, t: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
        """beta, or beta (1 - t)^2."""
        if self.weighting == "constant":
            return torch.full_like(t, self.beta)
        return self.beta * (1 - t).square()
