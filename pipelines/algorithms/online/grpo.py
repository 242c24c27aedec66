"""GRPO's clipped surrogate with a KL to the reference: Flow-GRPO, DanceGRPO and Step-GRPO are this loss of other values.

loss = mean over candidates of max(-A rho, -A clip(rho, 1 - eps, 1 + eps)) + kl_weight KL, rho = exp(log_prob - old)
(Liu et al., 2025, Flow-GRPO, eq. 5; Xue et al., 2025, DanceGRPO). The log-probabilities are means over elements, so rho is
the D-th root of the true ratio and eps is small. At the first update rho = 1 and the gradient is -A grad log_prob.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from infra.lazy import lazy
from pipelines.algorithms.online.moves import MoveLosses, MoveMethod, MoveReference, Moves

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class GRPO(MoveMethod):
    """The surrogate's options; values are advantages (`online.advantage`)."""

    method: Literal["grpo"] = "grpo"
    clip: float = Field(1e-4, gt=0, lt=1)
    """eps: beyond 1 - eps to 1 + eps the ratio of a candidate has no gradient that would carry it further."""
    kl_weight: float = Field(0.01, ge=0, allow_inf_nan=False)
    """Weight of the KL to the reference: Flow-GRPO 0.01 with preference rewards, 0.04 with GenEval or OCR; DanceGRPO 0."""
    kl_without_dt: bool = False
    """Whether the KL divides by std^2 and forgets the length of the step, as the public code of Flow-GRPO does."""

    @property
    def reference(self) -> MoveReference:
        """Means of the reference for the KL; nothing where its weight is 0."""
        return "means" if self.kl_weight else "none"

    def losses(self, moves: Moves) -> MoveLosses:
        """The surrogate of every state, plus its KL."""
        ratio = (moves.log_prob - moves.old.detach()).exp()
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        surrogate = torch.maximum(-moves.value * ratio, -moves.value * clipped).mean(1)
        kl = torch.zeros_like(surrogate)
        if self.kl_weight:
            assert moves.kl is not None, "GRPO with kl_weight > 0 needs the KL to the reference"
            kl = moves.kl
        outside = ((ratio - 1).abs() > self.clip).float().mean(1)
        metrics = {
            "ratio": ratio.mean(1).detach(),
            "clip_share": outside.detach(),
            "kl": kl.detach(),
            "zero_advantage": (moves.value == 0).all(1).float(),
        }
        return MoveLosses(losses=moves.weight * (surrogate + self.kl_weight * kl), metrics=metrics)
