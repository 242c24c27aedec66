"""Poly-DPO's term: alpha (1 - p), p the confidence in the winner (ViPO, eq. 9 and 10), with a fixed or following alpha.

The gradient of -log p + alpha (1 - p) along logit(p) is -(1 - p)(1 + alpha p). alpha > 0 keeps undecided pairs in play
where labels conflict (8 on Pick-a-Pic v2), 0 is DPO (clean labels), alpha < 0 lets go of what is trivially right.

The paper searches alpha on a grid and leaves an alpha that follows the batch's confidences to future work. `AutoAlpha` is
Salon's answer, no published method. From the confidences p of a whole batch, m1 = mean(p - 1/2) and
m2 = mean((p - 1/2)^2): s = 2 sqrt(m2) in [0, 1] says how confident the policy is, and r = m1 / sqrt(m2) in [-1, 1] how
one-sidedly: 1 if it is right about every pair, 0 if its confident errors outweigh what it gets right. Then alpha = s f(r)
with f falling from `high` at r <= 0 over 0 at r = `balance` to `low` at r = 1, straight between: 0 while the policy is
its reference, and continuous.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field, model_validator

from infra.config import Config, ConfigError
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

CONFIDENCE, SQUARE = "confidence", "confidence_square"


class FixedAlpha(Config):
    """The same alpha for every batch."""

    kind: Literal["fixed"] = "fixed"
    alpha: float = Field(default=0.0, allow_inf_nan=False)
    """0 is DPO; below -1 the loss pushes pairs with p > 1 / |alpha| away from their winner."""
    acknowledge_sign_change: bool = False
    """Confirms that an alpha below -1 is intended."""
    needs_statistics: ClassVar[bool] = False

    @model_validator(mode="after")
    def _descends(self) -> FixedAlpha:
        if self.alpha < -1 and not self.acknowledge_sign_change:
            raise ConfigError(
                f"alpha = {self.alpha:g} is below -1: pairs with p > {1 / -self.alpha:.3g} would be pushed away from their "
                "winner; give -1 or more (acknowledge_sign_change confirms that it is intended)"
            )
        return self

    def statistics(self, logit: Float[torch.Tensor, " pairs"]) -> dict[str, Float[torch.Tensor, " pairs"]]:
        del logit
        return {}

    def value(self, means: Mapping[str, float]) -> float:
        """`alpha`, whatever the batch."""
        del means
        return self.alpha


class AutoAlpha(Config):
    """alpha from the confidences of the batch: up where they conflict, down where all are right (see the module)."""

    kind: Literal["auto"] = "auto"
    low: float = Field(-1.0, ge=-1, le=0)
    """alpha where every confidence is 1; -1 is as far as the gradient keeps its sign."""
    high: float = Field(8.0, ge=0, allow_inf_nan=False)
    """alpha where confidences are extreme and as often wrong as right; 8 is the paper's best for noisy labels."""
    balance: float = Field(0.5, gt=0, lt=1)
    """r at which alpha is 0, whatever the confidence: between conflict (0) and unanimity (1)."""
    needs_statistics: ClassVar[bool] = True

    def statistics(self, logit: Float[torch.Tensor, " pairs"]) -> dict[str, Float[torch.Tensor, " pairs"]]:
        """p - 1/2 and its square; p without the margin, so that a policy that is its reference has p = 1/2."""
        lean = torch.sigmoid(logit.detach()) - 0.5
        return {CONFIDENCE: lean, SQUARE: lean.square()}

    def value(self, means: Mapping[str, float]) -> float:
        """alpha in [low, high] from m1 and m2."""
        spread = math.sqrt(max(means[SQUARE], 0.0))
        if spread == 0:
            return 0.0
        side = min(1.0, means[CONFIDENCE] / spread)
        if side < self.balance:
            height = self.high * min(1.0, 1 - side / self.balance)
        else:
            height = self.low * (side - self.balance) / (1 - self.balance)
        return min(1.0, 2 * spread) * height


Polynomial = Annotated[FixedAlpha | AutoAlpha, Field(discriminator="kind")]
"""The polynomial term of a DPO form: the type of an option."""


def polynomial_losses(logit: Float[torch.Tensor, " pairs"], *, alpha: float) -> Float[torch.Tensor, " pairs"]:
    """-log p + alpha (1 - p), p = sigma(logit)."""
    return torch.nn.functional.softplus(-logit) + alpha * torch.sigmoid(-logit)
