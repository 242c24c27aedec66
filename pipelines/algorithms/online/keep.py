"""Which of the k candidates of a step goes on, and which two are a preference pair.

A score that is NaN is unknown: such a candidate is neither best nor worst, and no pair is made of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator

from infra.config import Config, ConfigError
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

Keep = Literal["first", "random", "best", "worst"]
"""Which candidate goes on: the first drawn, one at random (SPO, LPO, Step-GRPO: the states are then the policy's own), the
one with the highest score (step-wise sampling, TAPO's win branch) or with the lowest (TAPO's lose branch)."""


def kept(
    scores: Float[torch.Tensor, "states candidates"], *, rule: Keep, uniform: Float[torch.Tensor, " states"]
) -> Int[torch.Tensor, " states"]:
    """Index of the candidate that goes on; the first where every score is NaN. `uniform` in [0, 1) decides "random"."""
    if rule == "first":
        return torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    if rule == "random":
        return (uniform * scores.shape[1]).long().clamp(max=scores.shape[1] - 1)
    if rule == "best":
        return torch.where(scores.isnan(), -torch.inf, scores).argmax(1)
    return torch.where(scores.isnan(), torch.inf, scores).argmin(1)


class Threshold(Config, ABC):
    """How clearly the best candidate must beat the worst before the pair is learnt from."""

    @abstractmethod
    def at(self, level: Float[torch.Tensor, " states"], *, low: float, high: float) -> Float[torch.Tensor, " states"]:
        """The least p_best - p_worst, in [0, 1), of steps with noise `level`; its range is `low` to `high`."""


class FixedThreshold(Threshold):
    """The same at every step: 0.3 is SPO's for SD1.5 (a score gap of 2 atanh 0.3 = 0.62), 0.4 for SDXL."""

    kind: Literal["fixed"] = "fixed"
    value: float = Field(0.3, ge=0, lt=1)
    """Least p_best - p_worst of a softmax over the two scores; equals are never learnt from."""

    def at(self, level: Float[torch.Tensor, " states"], *, low: float, high: float) -> Float[torch.Tensor, " states"]:
        """`value`."""
        del low, high
        return torch.full_like(level, self.value)


class NoiseThreshold(Threshold):
    """LPO's dynamic threshold: linear in the noise level of the step, from `lowest` to `highest` (Zhang et al., 2025)."""

    kind: Literal["noise"] = "noise"
    lowest: float = Field(0.35, ge=0, lt=1)
    """At the lowest noise level: 0.35 for SD1.5, 0.45 for SDXL."""
    highest: float = Field(0.5, ge=0, lt=1)
    """At the highest noise level: 0.5 for SD1.5, 0.6 for SDXL."""

    @model_validator(mode="after")
    def _ordered(self) -> NoiseThreshold:
        if self.lowest > self.highest:
            raise ConfigError(f"threshold: lowest = {self.lowest} is above highest = {self.highest}; swap them")
        return self

    def at(self, level: Float[torch.Tensor, " states"], *, low: float, high: float) -> Float[torch.Tensor, " states"]:
        """(level - low) / (high - low) (highest - lowest) + lowest; `highest` where all levels are equal."""
        share = (level - low) / (high - low) if high > low else torch.ones_like(level)
        return share * (self.highest - self.lowest) + self.lowest


AnyThreshold = Annotated[FixedThreshold | NoiseThreshold, Field(discriminator="kind")]
"""When a pair is learnt from: the type of an option."""


@dataclass(frozen=True, eq=False)
class CandidatePairs:
    """The best and the worst candidate of every state."""

    best: Int[torch.Tensor, " states"]
    worst: Int[torch.Tensor, " states"]
    lead: Float[torch.Tensor, " states"]
    """p_best - p_worst of a softmax over the two scores: tanh of half their gap; 0 where a score is unknown."""
    used: Bool[torch.Tensor, " states"]
    """Whether the lead exceeds the threshold."""


def candidate_pairs(
    scores: Float[torch.Tensor, "states candidates"], *, threshold: Float[torch.Tensor, " states"]
) -> CandidatePairs:
    """SPO's pairs (Liang et al., 2025): best and worst of k candidates, used where the best leads clearly."""
    unread = torch.zeros(len(scores), device=scores.device)
    best = kept(scores, rule="best", uniform=unread)
    worst = kept(scores, rule="worst", uniform=unread)
    rows = torch.arange(len(scores), device=scores.device)
    gap = scores[rows, best] - scores[rows, worst]
    lead = torch.tanh(0.5 * torch.where(gap.isfinite(), gap, 0.0))
    return CandidatePairs(best=best, worst=worst, lead=lead, used=lead > threshold)
