"""Diffusion-KTO: each picture by itself is desirable or not (Li et al., 2024, "Aligning diffusion models by optimizing
human utility").

With g = -(E - Eref) and kl = max(0, mean of g over the whole batch), a desirable picture costs 1 - sigma(beta (g - kl)),
another 1 - sigma(-beta (g - kl)); no gradient through kl. Winners are desirable, losers are not; each member of a tie is
half of both. Half of both is 1/2 whatever g: with equal weights a tie pulls nowhere and only takes part in kl.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field

from infra.lazy import lazy
from pipelines.algorithms.preference.pairwise import Method, PairBatch, PairLosses, Reference, figures

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

KL = "kl"


class KTO(Method):
    """The expected utility of desirable and undesirable pictures, against the policy's mean drift."""

    keeps_ties: ClassVar[bool] = True

    method: Literal["kto"] = "kto"
    beta: float = Field(5000.0, gt=0, allow_inf_nan=False)
    """KL weight on mean errors, without the 1/2 of the preference logit."""
    desirable: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Weight of desirable pictures."""
    undesirable: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the others; 0 learns from desirable ones alone."""

    @property
    def reference(self) -> Reference:
        """KTO needs the reference's errors alone, which can be cached."""
        return "errors"

    @property
    def needs_statistics(self) -> bool:
        """True: kl is a mean over the whole batch."""
        return True

    def statistics(self, batch: PairBatch) -> dict[str, Float[torch.Tensor, " pairs"]]:
        """g, mean of both members: their mean over the whole batch, if above 0, is kl."""
        return {KL: -0.5 * (batch.winner.drift + batch.loser.drift).detach()}

    def losses(self, batch: PairBatch, *, means: Mapping[str, float]) -> PairLosses:
        """Mean of both members' losses; (desirable + undesirable) / 4 where the policy is the reference."""
        kl = max(0.0, means[KL])
        won, lost = (self.beta * (-member.drift - kl) for member in (batch.winner, batch.loser))
        decided = self.desirable * torch.sigmoid(-won) + self.undesirable * torch.sigmoid(lost)
        other = self.desirable * torch.sigmoid(-lost) + self.undesirable * torch.sigmoid(won)
        losses = 0.5 * torch.where(batch.tie, 0.5 * (decided + other), decided)
        return PairLosses(losses=losses, metrics=figures(batch) | {KL: torch.full_like(batch.t, kl)})
