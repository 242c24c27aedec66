"""The algebra all preference losses on pairs share: errors, the implicit reward margin, and what is reported.

inside = -(beta / 2) [(E_w - Eref_w) - (E_l - Eref_l)] (Wallace et al., 2024, eq. 14; Liu et al., 2025, eq. 6) is the
margin by which the policy, seen as a reward model, prefers the winner. All four errors are per-sample means at one
shared noise and one shared time; the reference's carry no gradient. A method turns `inside` into a loss per pair: never
average `inside` over the batch first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from infra.config import Config, ConfigError
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@dataclass(frozen=True)
class PairErrors:
    """Per-sample mean errors of a batch of pairs, fp32 (`diffusion.flow.per_sample_error`)."""

    winner: Float[torch.Tensor, " pairs"]
    loser: Float[torch.Tensor, " pairs"]
    reference_winner: Float[torch.Tensor, " pairs"]
    reference_loser: Float[torch.Tensor, " pairs"]
    t: Float[torch.Tensor, " pairs"]
    """Time at which all four were taken, in [0, 1]; 1 is noise."""


@dataclass(frozen=True)
class PairLosses:
    """A loss for every pair, with the statistics of it; only `losses` carries a gradient."""

    losses: Float[torch.Tensor, " pairs"]
    inside: Float[torch.Tensor, " pairs"]
    """Implicit reward margin; positive when the policy has moved towards the winner."""
    winner_error: Float[torch.Tensor, " pairs"]
    loser_error: Float[torch.Tensor, " pairs"]
    drift: Float[torch.Tensor, " pairs"]
    """Policy's error minus the reference's, mean of both members: above 0, the policy denoises worse than it did."""

    @property
    def correct(self) -> Float[torch.Tensor, " pairs"]:
        """Whether the policy prefers the winner: 1, 0, and one half for equals (an untrained policy scores 0.5)."""
        return 0.5 * (1 + torch.sign(self.inside))

    def means(self) -> dict[str, float]:
        """Means over the pairs, under the names of the training curve."""
        return {
            "loss": self.losses.detach().mean().item(),
            "implicit_accuracy": self.correct.mean().item(),
            "winner_error": self.winner_error.mean().item(),
            "loser_error": self.loser_error.mean().item(),
            "drift": self.drift.mean().item(),
        }


class PairMethod(Config, ABC):
    """A loss on pairs: its options, and one function of errors. A new method is one subclass in one file."""

    keeps_ties: ClassVar[bool] = False
    """Whether pairs without a winner are material (their order then means nothing) or dropped before training."""

    @abstractmethod
    def losses(self, errors: PairErrors, *, margin: Float[torch.Tensor, " pairs"]) -> PairLosses:
        """The loss of every pair; `margin` is by how much `inside` should exceed 0 (zeros: plain DPO)."""


def inside(errors: PairErrors, *, beta: float | Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
    """-(beta / 2) [(E_w - Eref_w) - (E_l - Eref_l)]; `beta` one number, or one a pair."""
    winner_drift = errors.winner - errors.reference_winner.detach()
    loser_drift = errors.loser - errors.reference_loser.detach()
    return -0.5 * beta * (winner_drift - loser_drift)


def pair_losses(
    losses: Float[torch.Tensor, " pairs"], *, errors: PairErrors, margin: Float[torch.Tensor, " pairs"]
) -> PairLosses:
    """A method's `losses` with the statistics every method reports; `margin` is its `inside`."""
    drift = 0.5 * (errors.winner - errors.reference_winner + errors.loser - errors.reference_loser)
    return PairLosses(
        losses=losses,
        inside=margin.detach(),
        winner_error=errors.winner.detach(),
        loser_error=errors.loser.detach(),
        drift=drift.detach(),
    )


@dataclass(frozen=True)
class Decided:
    """The pairs that have a winner, in their order."""

    index: Int[np.ndarray, " decided"]
    """Position among all pairs."""
    winner_is_a: Bool[np.ndarray, " decided"]


def decided(choices: Sequence[str]) -> Decided:
    """Drops ties from labels in {a, b, tie}: a pair without a winner teaches a DPO loss nothing but its noise."""
    known = np.asarray(choices, dtype=object)
    strange = set(choices) - {"a", "b", "tie"}
    if strange:
        raise ConfigError(f"label {sorted(strange)[0]!r} is none of a, b, tie; label the pairs before training on them")
    index = np.flatnonzero(known != "tie")
    return Decided(index=index, winner_is_a=(known[index] == "a").astype(bool))
