"""How much of the loser's gradient is used: all of it, or what does not harm the winner (Fu et al., 2025, Diffusion-SDPO).

Pushing the loser away moves shared weights and can raise the winner's error with it. With g_w and g_l the gradients of the
two errors with respect to the policy's outputs, the winner's error does not rise to first order (there) while
lambda <= |g_w|^2 / (g_w . g_l); so lambda = clamp((1 - mu) |g_w|^2 / (g_w . g_l), 0, 1) where g_w . g_l > 0, else 1.
Losses keep their values; only the gradient through the loser's error is multiplied by lambda.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from jaxtyping import Float
from pydantic import Field

from infra.config import Config
from infra.lazy import lazy
from pipelines.algorithms.preference.pairwise import Member, PairBatch

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

NORM, OVERLAP = "winner_gradient", "gradient_overlap"


class Unscaled(Config):
    """The loser's whole gradient."""

    kind: Literal["unscaled"] = "unscaled"

    @property
    def needs_statistics(self) -> bool:
        return False

    def statistics(self, batch: PairBatch) -> dict[str, Float[torch.Tensor, " pairs"]]:
        del batch
        return {}

    def scales(self, batch: PairBatch, *, means: Mapping[str, float]) -> Float[torch.Tensor, " pairs"]:
        del means
        return torch.ones_like(batch.loser.error)


class SafeScale(Config):
    """The share of the loser's gradient that leaves the winner unharmed."""

    kind: Literal["safe"] = "safe"
    mu: float = Field(default=0.9, ge=0, le=1)
    """Reserve: 0 goes to the bound, 1 drops every loser whose gradient is along its winner's. Public code for SD1.5 has
    0.9 with Diffusion-DPO and 0.2 with DSPO."""
    per: Literal["pair", "batch"] = "pair"
    """One lambda per pair, or one from the batch's means (of all ranks and passes; public code: a local batch's)."""

    @property
    def needs_statistics(self) -> bool:
        """Only for a lambda of the batch."""
        return self.per == "batch"

    def statistics(self, batch: PairBatch) -> dict[str, Float[torch.Tensor, " pairs"]]:
        """|g_w|^2 and g_w . g_l of each pair, up to one common factor."""
        norm, overlap = _products(batch)
        return {NORM: norm, OVERLAP: overlap} if self.needs_statistics else {}

    def scales(self, batch: PairBatch, *, means: Mapping[str, float]) -> Float[torch.Tensor, " pairs"]:
        """lambda of each pair, in [0, 1], without gradient."""
        if self.per == "pair":
            norm, overlap = _products(batch)
        else:
            norm, overlap = (torch.full_like(batch.t, means[name]) for name in (NORM, OVERLAP))
        harmful = overlap > 0
        bound = (1 - self.mu) * norm / torch.where(harmful, overlap, 1)
        return torch.where(harmful, bound.clamp(0, 1), 1)


LoserGradient = Annotated[Unscaled | SafeScale, Field(discriminator="kind")]
"""How much of the loser's gradient is used: the type of an option."""


def scaled(member: Member, *, scales: Float[torch.Tensor, " pairs"]) -> Member:
    """The member with the gradient through its error multiplied by `scales`, and the same error."""
    fixed = member.error.detach()
    return replace(member, error=fixed + scales * (member.error - fixed))


def _products(batch: PairBatch) -> tuple[Float[torch.Tensor, " pairs"], Float[torch.Tensor, " pairs"]]:
    """Means over elements of r_w^2 and r_w r_l, r = prediction - target: gradients but for a factor both share."""
    winner = (batch.winner.prediction.detach().float() - batch.winner.target.float()).flatten(1)
    loser = (batch.loser.prediction.detach().float() - batch.loser.target.float()).flatten(1)
    return winner.square().mean(1), (winner * loser).mean(1)
