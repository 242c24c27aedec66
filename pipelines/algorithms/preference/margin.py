"""Margins of preference losses: by how much the winner should win (ArenaPO, eq. 14; Section 5.5 and Appendix F)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from jaxtyping import Float
from pydantic import Field

from infra.config import Config
from infra.lazy import lazy
from pipelines.algorithms.preference.pairwise import PairBatch

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class Margin(Config):
    """margin = c g: a coefficient times the quality gap g of each pair, whatever the gap comes from.

    ArenaPO's own margin, the uniform one of its Table 5, and the difference of a reward model (Appendix F) are one formula:

    >>> Margin(scale=0.1, gap="arena")
    Margin(scale=0.1, gap='arena')
    >>> Margin(scale=0.1, gap=2.0)
    Margin(scale=0.1, gap=2.0)
    >>> Margin()  # no margin at all: plain DPO
    Margin(scale=0.0, gap='arena')
    """

    scale: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """c: units of the preference logit per unit of the gap. The paper searches it on a grid; 0 is no margin."""
    gap: Literal["arena", "reward"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = "arena"
    """g: "arena" is the posterior gap of the pair's generators (`rating.gap`); "reward" is max(0, reward of the winner
    minus reward of the loser); a number is the same gap for every pair, on the arena's scale (0.5 to 4 in the paper)."""

    def margins(self, batch: PairBatch) -> Float[torch.Tensor, " pairs"]:
        """c g of every pair, 0 or more, without gradient; 0 where the gap is not known (NaN)."""
        if self.scale == 0:
            return torch.zeros_like(batch.gap)
        if self.gap == "arena":
            gap = batch.gap
        elif self.gap == "reward":
            gap = (batch.reward_winner - batch.reward_loser).clamp(min=0).to(batch.gap)
        else:
            gap = torch.full_like(batch.gap, self.gap)
        return self.scale * torch.nan_to_num(gap, nan=0.0)
