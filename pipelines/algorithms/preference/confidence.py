"""How far a label is believed: fully, as a probability, or as a weight.

A share of agreeing jurors is no probability of being right: on 1,735 pairs that people judged too (GenAI-Bench), a plain
majority of eleven jurors agrees by .73 and is right on .38 of them. Soft and weighted labels therefore take the
probability of a jury that was calibrated on people's labels (`voting.calibrated`), and nothing else.

Soft labels cost q L(+) + (1 - q) L(-), with L(-) the loss of the pair exchanged (Mitchell, 2023, conservative DPO): they
stop where the policy's own confidence is q. Weighted labels keep the winner a winner and let doubtful pairs count less.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field

from infra.config import Config
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class Confidence(Config, ABC):
    """Weights of a pair's loss and of the loss of the pair exchanged."""

    needs_probability: ClassVar[bool] = True
    """Whether every example must say how probable it is that its label is right."""

    @abstractmethod
    def weight(self, probability: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
        """Weight of the loss of the pair as labelled, in [0, 1]."""

    def losses(
        self,
        direct: Callable[[], Float[torch.Tensor, " pairs"]],
        *,
        exchanged: Callable[[], Float[torch.Tensor, " pairs"]],
        probability: Float[torch.Tensor, " pairs"],
    ) -> Float[torch.Tensor, " pairs"]:
        """The weighted loss as labelled; `exchanged`, called only where it is needed, has the two members turned round."""
        del exchanged
        return self.weight(probability) * direct()


class HardLabels(Confidence):
    """Every label counts as certain."""

    kind: Literal["hard"] = "hard"
    needs_probability: ClassVar[bool] = False

    def weight(self, probability: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
        """1, whether a probability is known or not."""
        return torch.ones_like(probability)


class SoftLabels(Confidence):
    """The loss expected under the probability that the label is right."""

    kind: Literal["soft"] = "soft"

    def weight(self, probability: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
        """q = max(probability, 1/2): below, the loser would be taught as the winner."""
        return probability.clamp(0.5, 1)

    def losses(
        self,
        direct: Callable[[], Float[torch.Tensor, " pairs"]],
        *,
        exchanged: Callable[[], Float[torch.Tensor, " pairs"]],
        probability: Float[torch.Tensor, " pairs"],
    ) -> Float[torch.Tensor, " pairs"]:
        """q L(+) + (1 - q) L(-): the mixture of the losses of both orders, q the weight of the label's own."""
        share = self.weight(probability)
        return share * direct() + (1 - share) * exchanged()


class WeightedLabels(Confidence):
    """The probability that the label is right weighs the loss of the pair."""

    kind: Literal["weighted"] = "weighted"
    by: Literal["lead", "probability"] = "lead"
    """lead: 2 p - 1, so that an even chance counts nothing (0 also below one half); probability: p itself."""

    def weight(self, probability: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
        """Weights float[pairs] in [0, 1] from the probabilities p that the labels are right."""
        return (2 * probability - 1 if self.by == "lead" else probability).clamp(0, 1)


LabelConfidence = Annotated[HardLabels | SoftLabels | WeightedLabels, Field(discriminator="kind")]
"""How a label's certainty enters the loss: the type of an option."""
