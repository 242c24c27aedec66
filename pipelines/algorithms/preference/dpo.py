"""What all DPO forms share: -log sigma(preference logit - margin), with the terms the papers add to it as options.

The order of composition: the loser's gradient is scaled within the preference logit (Diffusion-SDPO), the margin is
subtracted (ArenaPO, eq. 14), the polynomial term is added at p = sigma(logit - margin) (Poly-DPO, eq. 9), and the label's
confidence mixes or weighs the result. With the default of each, this is DPO. The exchanged pair of a soft label has the
same margin: either member, were it the better one, should win by the gap.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jaxtyping import Float
from pydantic import Field

from infra.lazy import lazy
from pipelines.algorithms.preference.confidence import HardLabels, LabelConfidence
from pipelines.algorithms.preference.loser_gradient import LoserGradient, Unscaled, scaled
from pipelines.algorithms.preference.margin import Margin
from pipelines.algorithms.preference.needs import needed_columns
from pipelines.algorithms.preference.pairwise import Method, PairBatch, PairLosses, Reference, figures, preference_logit
from pipelines.algorithms.preference.polynomial import FixedAlpha, Polynomial, polynomial_losses

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class DPO(Method):
    """-log sigma(logit - margin) for every pair that has a winner, and the options of it."""

    beta: float = Field(gt=0, allow_inf_nan=False)
    """KL weight on mean errors: higher stays closer to the reference. With sums, divide it by the number of elements."""
    margin: Margin = Margin()
    """By how much the preference logit of the winner should exceed 0."""
    polynomial: Polynomial = FixedAlpha()
    """Poly-DPO's term: where confident and undecided pairs get their weight."""
    loser_gradient: LoserGradient = Unscaled()
    """How much of the loser's gradient is used."""
    confidence: LabelConfidence = HardLabels()
    """How far labels are believed."""

    @property
    def needs(self) -> frozenset[str]:
        """Columns that the margin and the label confidence read."""
        return needed_columns(self.margin, confidence=self.confidence)

    @abstractmethod
    def beta_at(self, t: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
        """beta of each pair at its time in [0, 1]."""

    @property
    def reference(self) -> Reference:
        """DPO needs the reference's errors alone, which can be cached."""
        return "errors"

    @property
    def needs_statistics(self) -> bool:
        """True where alpha or the scale of the loser's gradient is computed from the whole batch."""
        return self.polynomial.needs_statistics or self.loser_gradient.needs_statistics

    def statistics(self, batch: PairBatch) -> dict[str, Float[torch.Tensor, " pairs"]]:
        """Values of each pair whose batch means give alpha and the scale of the loser's gradient."""
        logit = preference_logit(batch.winner, loser=batch.loser, beta=self.beta_at(batch.t))
        return self.polynomial.statistics(logit) | self.loser_gradient.statistics(batch)

    def losses(self, batch: PairBatch, *, means: Mapping[str, float]) -> PairLosses:
        """The loss of every pair; ln 2 + alpha / 2 where the policy is the reference and the margin 0."""
        alpha = self.polynomial.value(means)
        scales = self.loser_gradient.scales(batch, means=means)
        logit = preference_logit(batch.winner, loser=scaled(batch.loser, scales=scales), beta=self.beta_at(batch.t))
        margin = self.margin.margins(batch)
        losses = self.confidence.losses(
            lambda: polynomial_losses(logit - margin, alpha=alpha),
            exchanged=lambda: polynomial_losses(-logit - margin, alpha=alpha),
            probability=batch.probability,
        )
        own = {"preference_logit": logit.detach(), "alpha": torch.full_like(batch.t, alpha), "loser_scale": scales}
        return PairLosses(losses=losses, metrics=figures(batch) | own)
