"""SPO's loss on the best and the worst candidate: SPO, LPO and TAPO are this loss on other pairs.

loss = -log sigma(beta [(log_prob - reference)(better) - (log_prob - reference)(worse)]) (Liang et al., 2025, SPO; SLRM +
TAPO, eq. 13). SPO and LPO take both candidates from one state, TAPO each from its own branch's state: eq. 13 writes one
x_t, but the branches have diverged. Algorithm 1 of TAPO speaks of ascent on a loss that is negated already; here it is
minimised. Log-probabilities are means over elements. Where the policy is the reference the loss is ln 2 and its gradient
is not zero.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from infra.lazy import lazy
from pipelines.algorithms.online.moves import MoveLosses, MoveMethod, MoveReference, Moves

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class SPO(MoveMethod):
    """The pairwise loss; values are +1 for the better candidate and -1 for the worse one."""

    method: Literal["spo"] = "spo"
    beta: float = Field(10.0, gt=0, allow_inf_nan=False)
    """KL weight on mean log-probabilities: 10 (SPO), 500 (LPO), 1000 for pictures and 500 for clips (TAPO)."""
    clip: float | None = Field(0.1, gt=0, lt=1)
    """Limits each ratio exp(log_prob - reference) to 1 - clip ... 1 + clip (SPO and LPO: 0.1); None for no limit, as in
    TAPO's text: at beta = 1000 the sigmoid saturates long before a ratio of 1.1."""

    @property
    def reference(self) -> MoveReference:
        """Stored log-probabilities of the reference."""
        return "log_probs"

    def losses(self, moves: Moves) -> MoveLosses:
        """The loss of every state: ln 2 times its weight where the policy is the reference."""
        assert moves.reference is not None, "SPO needs the reference's log-probabilities"
        ratio = moves.log_prob - moves.reference.detach()
        limited = ratio
        if self.clip is not None:
            limited = ratio.clamp(math.log1p(-self.clip), math.log1p(self.clip))
        logit = (moves.value * limited).sum(1)
        lead = (moves.value * ratio).sum(1).detach()
        metrics = {
            "implicit_accuracy": 0.5 * (1 + torch.sign(lead)),
            "log_ratio_gap": lead,
            "clip_share": (ratio != limited).float().mean(1),
        }
        losses = -torch.nn.functional.logsigmoid(self.beta * logit)
        return MoveLosses(losses=moves.weight * losses, metrics=metrics)
