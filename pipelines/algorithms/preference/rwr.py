"""Reward-weighted regression on both members of a pair (Liu et al., 2025, eq. 9: Flow-RWR; Lee et al., 2023).

Each picture's error is weighted by exp(r / temperature), r its own reward; labels are not used, so ties are material. Two
readings: public code multiplies by the raw reward, which can be negative and then teaches the model to make the picture
less likely by raising its error without bound. Here r is normalised over the data set and the weight clipped: always
positive, and no outlier outweighs a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field

from infra.lazy import lazy
from pipelines.algorithms.preference.needs import REWARDS
from pipelines.algorithms.preference.pairwise import Method, PairBatch, PairLosses, Reference, figures

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class RWR(Method):
    """Mean of both members' errors, each weighted by the exponential of its reward."""

    keeps_ties: ClassVar[bool] = True

    method: Literal["rwr"] = "rwr"
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    """beta of eq. 7, in standard deviations of the reward: the higher, the more alike the weights; eq. 9 has 1."""
    highest: float = Field(10.0, ge=1, allow_inf_nan=False)
    """Largest weight; an average picture has 1."""

    @property
    def needs(self) -> frozenset[str]:
        """Each picture's own reward."""
        return REWARDS

    @property
    def reference(self) -> Reference:
        return "none"

    def weights(self, reward: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
        """min(exp(r / temperature), highest), above 0."""
        return torch.exp((reward.float() / self.temperature).clamp(max=math.log(self.highest)))

    def losses(self, batch: PairBatch, *, means: Mapping[str, float]) -> PairLosses:
        """(w_w E_w + w_l E_l) / 2."""
        del means
        first, second = self.weights(batch.reward_winner), self.weights(batch.reward_loser)
        losses = 0.5 * (first * batch.winner.error + second * batch.loser.error)
        return PairLosses(losses=losses, metrics=figures(batch) | {"weight": 0.5 * (first + second)})
