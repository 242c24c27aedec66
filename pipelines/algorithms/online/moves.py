"""What online losses share: the material of a batch of states, the loss of each, and what is reported.

A state is a latent of a rollout with the candidates for the next one that are learnt from. One forward of the policy per
state gives the Gaussian of all of them. A method is a pure function of the log-probabilities: GRPO has one candidate per
state, Step-GRPO k of one state, SPO and LPO the best and the worst of one state, TAPO the best and the worst of two states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jaxtyping import Bool, Float

from infra.config import Config
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

MoveReference = Literal["none", "log_probs", "means"]
"""What a method needs of the reference: nothing; the log-probabilities of the candidates, which are fixed numbers and
stored with their state; or the means of its Gaussians, which take a forward of the reference per state."""


@dataclass(frozen=True, eq=False)
class Moves:
    """A batch of states with their candidates."""

    log_prob: Float[torch.Tensor, "states candidates"]
    """The policy's, with gradient: per-element means (`diffusion.stochastic.log_prob`)."""
    old: Float[torch.Tensor, "states candidates"]
    """The rollout's own, stored with the state."""
    reference: Float[torch.Tensor, "states candidates"] | None
    """The reference's, stored with the state; None where the method does not need it."""
    value: Float[torch.Tensor, "states candidates"]
    """GRPO: advantages. SPO: +1 for the better candidate, -1 for the worse one, 0 for what is not used."""
    weight: Float[torch.Tensor, " states"]
    """0 for a state that is not used; see `state_weights`."""
    kl: Float[torch.Tensor, " states"] | None
    """KL to the reference on means, with gradient (`diffusion.stochastic.kl`); None where the method does not need it."""


@dataclass(frozen=True, eq=False)
class MoveLosses:
    """A loss for every state, with figures of it; only `losses` carries a gradient."""

    losses: Float[torch.Tensor, " states"]
    metrics: dict[str, Float[torch.Tensor, " states"]]


class MoveMethod(Config, ABC):
    """A loss on states and their candidates: its options, and one function of a batch."""

    @property
    @abstractmethod
    def reference(self) -> MoveReference:
        """What the method needs of the reference model."""

    @abstractmethod
    def losses(self, moves: Moves) -> MoveLosses:
        """The loss of every state, times its weight."""


def state_weights(used: Bool[torch.Tensor, " states"]) -> Float[torch.Tensor, " states"]:
    """states / used for the used ones, 0 for the others; all 0 where none is used.

    `used` must be of the whole round (all ranks), so that the mean over a batch of constant size estimates the mean over
    what is used.
    """
    return used.float() * (len(used) / used.sum().clamp(min=1))
