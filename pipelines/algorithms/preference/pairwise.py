"""What preference losses on pairs share: the material of a batch, the preference logit, and what is reported.

The preference logit -(beta / 2) [(E_w - Eref_w) - (E_l - Eref_l)] (Wallace et al., 2024, eq. 14; Liu et al., 2025, eq. 6)
is the log-odds with which the policy, seen as a reward model, prefers the winner. All four errors are per-sample means at
one shared noise and one shared time; the reference's carry no gradient. A method turns a batch into a loss per pair: never
average the logit over the batch first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Bool, Float

from infra.config import Config
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

Reference = Literal["none", "errors", "predictions"]
"""What a method needs of the reference: nothing, its errors (which can be cached), or its predictions."""

DIFFUSION = frozenset({"epsilon", "v_prediction"})
EVERY = DIFFUSION | {"flow"}


@dataclass(frozen=True)
class Member:
    """One side of a batch of pairs: pictures [pairs, c, h, w] or clips [pairs, c, f, h, w] at one noise and time."""

    prediction: Float[torch.Tensor, "pairs *shape"]
    """The policy's prediction, with gradient."""
    target: Float[torch.Tensor, "pairs *shape"]
    """The target of the prediction (`diffusion.path.PathSample.target`)."""
    error: Float[torch.Tensor, " pairs"]
    """E: fp32 mean over all but the pairs (`diffusion.path.per_sample_error`), with gradient."""
    reference: Float[torch.Tensor, "pairs *shape"] | None
    """The reference's prediction; None where it is not there: cached errors, or no reference at all."""
    reference_error: Float[torch.Tensor, " pairs"] | None
    """Eref; None where the method needs no reference."""

    @property
    def drift(self) -> Float[torch.Tensor, " pairs"]:
        """E - Eref: below 0 where the policy has become better at this picture; no gradient through Eref."""
        assert self.reference_error is not None, "this method needs the reference's errors; see Method.reference"
        return self.error - self.reference_error.detach()


@dataclass(frozen=True)
class PairBatch:
    """Pairs with shared noise and time, and what is known about their labels."""

    winner: Member
    loser: Member
    t: Float[torch.Tensor, " pairs"]
    """Time of all predictions, in [0, 1]; 1 is noise."""
    gap: Float[torch.Tensor, " pairs"]
    """The arena's posterior gap, 0 or more, on the rating's scale (`rating.gap`); NaN where it is not known."""
    probability: Float[torch.Tensor, " pairs"]
    """Probability that the label is right, from a jury calibrated on people's labels; NaN where it is not known."""
    tie: Bool[torch.Tensor, " pairs"]
    """Equals, whose order means nothing: only for methods with `keeps_ties`."""
    reward_winner: Float[torch.Tensor, " pairs"]
    """Scalar reward, normalised over the data set to mean 0 and standard deviation 1; zeros where unknown."""
    reward_loser: Float[torch.Tensor, " pairs"]

    @property
    def exchanged(self) -> PairBatch:
        """The same pairs with winner and loser the other way round."""
        rewards = {"reward_winner": self.reward_loser, "reward_loser": self.reward_winner}
        return replace(self, winner=self.loser, loser=self.winner, **rewards)


@dataclass(frozen=True)
class PairLosses:
    """A loss for every pair, with figures of it; only `losses` carries a gradient."""

    losses: Float[torch.Tensor, " pairs"]
    metrics: dict[str, Float[torch.Tensor, " pairs"]]
    """By name: the figures that every method reports (`figures`), and those of this method."""


class Method(Config, ABC):
    """A loss on pairs: its options, and one function of a batch. A new method is one subclass in one file."""

    keeps_ties: ClassVar[bool] = False
    """Whether pairs without a winner are material (their order then means nothing) or dropped before training."""
    trains_losers: ClassVar[bool] = True
    """Whether losers carry a gradient; where not, their errors are for the curve only, and cost no backward pass."""
    predictions: ClassVar[frozenset[str]] = EVERY
    """Parametrisations it is for: of flow, epsilon and v_prediction."""

    @property
    def needs(self) -> frozenset[str]:
        """Optional columns of an Example that this method reads, and that every example must therefore have."""
        return frozenset()

    @property
    @abstractmethod
    def reference(self) -> Reference:
        """What the method needs of the reference model: nothing, its errors, or its predictions."""

    @property
    def needs_statistics(self) -> bool:
        """Whether `losses` reads `means`: then `statistics` is taken of the whole batch first, without gradient."""
        return False

    def statistics(self, batch: PairBatch) -> dict[str, Float[torch.Tensor, " pairs"]]:
        """Values of each pair whose means over the WHOLE batch (all ranks, all passes) `losses` needs."""
        del batch
        return {}

    @abstractmethod
    def losses(self, batch: PairBatch, *, means: Mapping[str, float]) -> PairLosses:
        """The loss of every pair; `means` are those of `statistics` over the whole batch, {} where it has none."""


def preference_logit(
    winner: Member, *, loser: Member, beta: float | Float[torch.Tensor, " pairs"]
) -> Float[torch.Tensor, " pairs"]:
    """-(beta / 2) [(E_w - Eref_w) - (E_l - Eref_l)]; `beta` is one number, or one number per pair."""
    return -0.5 * beta * (winner.drift - loser.drift)


def figures(batch: PairBatch) -> dict[str, Float[torch.Tensor, " pairs"]]:
    """What every method reports of a batch, without gradient.

    implicit_accuracy: 1 where the policy has moved towards the winner, 0 where towards the loser, one half for equals (an
    untrained policy scores 0.5). Without a reference: where it denoises the winner better, which says less. winner_error
    and loser_error: E. error_drift, with a reference: E - Eref, mean of both; above 0 the policy denoises worse.
    """
    winner, loser = batch.winner, batch.loser
    referred = winner.reference_error is not None and loser.reference_error is not None
    lead = loser.drift - winner.drift if referred else loser.error - winner.error
    correct = 0.5 * (1 + torch.sign(lead.detach()))
    found = {
        "implicit_accuracy": torch.where(batch.tie, 0.5, correct),
        "winner_error": winner.error.detach(),
        "loser_error": loser.error.detach(),
    }
    if referred:
        found["error_drift"] = 0.5 * (winner.drift + loser.drift).detach()
    return found
