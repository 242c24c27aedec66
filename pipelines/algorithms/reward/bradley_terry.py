"""Pairwise losses of reward models: Bradley-Terry, without and with ties (Rao & Kupper, 1967; Liu et al., 2025, eq. 2).

With D = r_a - r_b and theta > 1: P(a) = sigma(D - ln theta), P(b) = sigma(-D - ln theta), and the tie has the rest,
P(tie) = (theta^2 - 1) P(a) P(b). VideoAlign's eq. 1 prints theta on the other term, which does not sum to 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from jaxtyping import Bool, Float, Int
from pydantic import Field

from infra.config import Config
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

A_WINS, TIE, B_WINS = 1, 0, -1
"""Outcomes as numbers; negated when a and b are swapped."""


class BradleyTerry(Config):
    """-log sigma of the winner's lead; a tie is half a win of each."""

    kind: Literal["bradley_terry"] = "bradley_terry"

    def losses(
        self, difference: Float[torch.Tensor, " pairs"], *, outcome: Int[torch.Tensor, " pairs"]
    ) -> Float[torch.Tensor, " pairs"]:
        """The loss of every pair from D = r_a - r_b; nan for an unknown outcome, as in `BradleyTerryTies`.

        Ties pull D to 0; drop them beforehand where they should not.
        """
        lead = difference.float()
        share = 0.5 * (1 + outcome.to(lead.dtype))
        softplus = torch.nn.functional.softplus
        losses = share * softplus(-lead) + (1 - share) * softplus(lead)
        return torch.where(known(outcome), losses, math.nan)


class BradleyTerryTies(Config):
    """Three outcomes; the model learns when two pictures are equally good."""

    kind: Literal["bradley_terry_ties"] = "bradley_terry_ties"
    theta: float = Field(5.0, gt=1)
    """Tendency to call a tie: equals tie with probability (theta - 1) / (theta + 1); 1 would mean never."""

    def losses(
        self, difference: Float[torch.Tensor, " pairs"], *, outcome: Int[torch.Tensor, " pairs"]
    ) -> Float[torch.Tensor, " pairs"]:
        """-log P(outcome) of every pair from D = r_a - r_b.

        An outcome that is none of the three (an unreadable or missing label) has the loss nan, so that it cannot be trained
        on as a tie by mistake: leave it out with `losses[known(outcome)].mean()`.
        """
        width = math.log(self.theta)
        lead = difference.float()
        a_wins = torch.nn.functional.softplus(width - lead)
        b_wins = torch.nn.functional.softplus(width + lead)
        tie = a_wins + b_wins - math.log(self.theta**2 - 1)
        losses = torch.where(outcome == A_WINS, a_wins, torch.where(outcome == B_WINS, b_wins, tie))
        return torch.where(known(outcome), losses, math.nan)


def known(outcome: Int[torch.Tensor, " pairs"]) -> Bool[torch.Tensor, " pairs"]:
    """True where the outcome is a win, a loss or a tie."""
    return (outcome == A_WINS) | (outcome == B_WINS) | (outcome == TIE)
