"""DSPO: direct score preference optimisation (Zhu et al., 2025).

loss = mean [((e_w - target) - B (e_w - eref_w))^2] with B = beta (1 - sigma(preference logit - margin)): the winner's
prediction is drawn to a target beyond its own, further away from the reference the less the policy prefers the winner yet.
The bracket is zero at e_w = target + B / (1 - B) (target - eref_w): above B = 1 that point lies on the other side and the
policy would be driven away from the winner, so beta is below 1 (public code: 0.001). The loser enters through sigma alone.

Which beta multiplies the errors in the preference logit is not clear. The paper writes one beta for both places and errors
as sums over the elements; public code takes means with the beta of the bracket, where sigma stays at 1/2. `logit_beta`
offers both. Whichever it is, a beta of 0.001 lets all that depends on preferences change the residual by 0.1 % of
e_w - eref_w: the loss is close to SFT on winners, and a margin can change very little. That ArenaPO's margins improve DSPO
(ArenaPO, Table 4) is therefore unproven here; `preference_share` reports how much of the gradient is at stake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from jaxtyping import Float
from pydantic import Field

from infra.lazy import lazy
from pipelines.algorithms.diffusion.path import per_sample_error, spread
from pipelines.algorithms.preference.confidence import HardLabels, LabelConfidence
from pipelines.algorithms.preference.loser_gradient import LoserGradient, Unscaled, scaled
from pipelines.algorithms.preference.margin import Margin
from pipelines.algorithms.preference.needs import needed_columns
from pipelines.algorithms.preference.pairwise import (
    Member,
    Method,
    PairBatch,
    PairLosses,
    Reference,
    figures,
    preference_logit,
)

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class DSPO(Method):
    """Regression on the winner, with a target that leans away from the reference."""

    method: Literal["dspo"] = "dspo"
    beta: float = Field(0.001, ge=0, lt=1)
    """How far the target leans away; 0 is SFT on winners, 1 or more would turn the gradient round."""
    logit_beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["bracket", "sum"] = "bracket"
    """KL weight of the preference logit on mean errors. "bracket": `beta`, as in public code. "sum": `beta` times the
    number of elements of a latent, which is the paper's one beta on summed errors."""
    margin: Margin = Margin()
    """By how much the preference logit of the winner should exceed 0 (ArenaPO + DSPO)."""
    loser_gradient: LoserGradient = Unscaled()
    """How much of the loser's gradient is used."""
    confidence: LabelConfidence = HardLabels()
    """How far labels are believed."""

    @property
    def needs(self) -> frozenset[str]:
        """Columns that the margin and the label confidence read."""
        return needed_columns(self.margin, confidence=self.confidence)

    @property
    def reference(self) -> Reference:
        """DSPO needs the reference's predictions: its errors say nothing about the direction away from it."""
        return "predictions"

    @property
    def needs_statistics(self) -> bool:
        """True where the scale of the loser's gradient is computed from the whole batch."""
        return self.loser_gradient.needs_statistics

    def statistics(self, batch: PairBatch) -> dict[str, Float[torch.Tensor, " pairs"]]:
        """What a loser's scale of the whole batch is made from."""
        return self.loser_gradient.statistics(batch)

    def losses(self, batch: PairBatch, *, means: Mapping[str, float]) -> PairLosses:
        """The loss of every pair; E_w where the policy is the reference."""
        scales = self.loser_gradient.scales(batch, means=means)
        margin = self.margin.margins(batch)
        loser = scaled(batch.loser, scales=scales)
        losses = self.confidence.losses(
            lambda: self._regression(batch.winner, other=loser, margin=margin),
            exchanged=lambda: self._regression(batch.loser, other=batch.winner, margin=margin),
            probability=batch.probability,
        )
        own = {
            "preference_logit": self._logit(batch.winner, other=batch.loser).detach(),
            "preference_share": self._preference_share(batch, margin=margin, scales=scales),
            "loser_scale": scales,
        }
        return PairLosses(losses=losses, metrics=figures(batch) | own)

    def _beta_of(self, member: Member) -> float:
        """KL weight of the preference logit on mean errors."""
        if self.logit_beta == "bracket":
            return self.beta
        return self.beta * member.target[0].numel() if self.logit_beta == "sum" else self.logit_beta

    def _logit(self, member: Member, *, other: Member) -> Float[torch.Tensor, " pairs"]:
        return preference_logit(member, loser=other, beta=self._beta_of(member))

    def _regression(
        self, member: Member, *, other: Member, margin: Float[torch.Tensor, " pairs"]
    ) -> Float[torch.Tensor, " pairs"]:
        """The loss of `member` as the winner over `other`."""
        assert member.reference is not None, "DSPO needs the reference's predictions; see Method.reference"
        lean = self.beta * torch.sigmoid(margin - self._logit(member, other=other))
        away = member.prediction.float() - member.reference.detach().float()
        return per_sample_error(member.prediction.float() - spread(lean, like=away) * away, target=member.target)

    def _preference_share(
        self, batch: PairBatch, *, margin: Float[torch.Tensor, " pairs"], scales: Float[torch.Tensor, " pairs"]
    ) -> Float[torch.Tensor, " pairs"]:
        """|g_2| / (|g_1| + |g_2|) in [0, 1]: g_1 = 2 (e_w - target) / n is the gradient of SFT on winners, g_2 the rest.

        g_2 is what the second term of the bracket adds to the gradient with respect to both predictions: through the term
        itself and through its factor B, whose slope is beta s (1 - s) times that of the logit, s = sigma(margin - logit).
        """
        with torch.no_grad():
            assert batch.winner.reference is not None, "DSPO needs the reference's predictions; see Method.reference"
            first, lost = (m.prediction.float() - m.target.float() for m in (batch.winner, batch.loser))
            away = batch.winner.prediction.float() - batch.winner.reference.float()
            doubt = torch.sigmoid(margin - self._logit(batch.winner, other=batch.loser)).float()
            lean = spread(self.beta * doubt, like=away)
            rest = first - lean * away
            slope = self.beta * self._beta_of(batch.winner) * doubt * (1 - doubt) * (rest * away).flatten(1).mean(1)
            of_winner = -lean * (away + rest) - spread(slope, like=away) * first
            of_loser = spread(slope * scales, like=away) * lost
            norms = [part.flatten(1).square().sum(1) for part in (first, of_winner, of_loser)]
            added = (norms[1] + norms[2]).sqrt()
            return (added / (norms[0].sqrt() + added)).nan_to_num(0.0)
