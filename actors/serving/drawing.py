"""Free text drawn from a seed, the same alone and in any batch.

The most likely token of log p + g, with independent Gumbel noise g = -log(-log u), is a draw from p (Gumbel, 1954; the
"Gumbel-max trick"). Each row has its own generator, so that no row's draws depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from actors.serving.engine import Question
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class SeededDraws:
    """Turns the choice of the most likely token into a draw, for the rows whose temperature is above 0."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = list(questions)
        self.generators = [torch.Generator().manual_seed(question.seed) for question in questions]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """scores: float[rows, vocabulary], logits; returns what has its largest entry at the token drawn."""
        found = scores.double()
        for row, (question, generator) in enumerate(zip(self.questions, self.generators, strict=True)):
            if question.temperature > 0:
                logits = likeliest(found[row] / question.temperature, top_p=question.top_p)
                uniform = torch.rand(len(logits), generator=generator, dtype=torch.float64)
                found[row] = logits - (-uniform.log()).log().to(logits.device)
        return found


def likeliest(logits: torch.Tensor, *, top_p: float) -> torch.Tensor:
    """The logits of the fewest most likely tokens that together have probability `top_p`; -inf for all others."""
    if top_p >= 1:
        return logits
    ranked, order = logits.softmax(-1).sort(descending=True, stable=True)
    before = ranked.cumsum(-1) - ranked
    dropped = order[before >= top_p]
    return logits.index_fill(-1, dropped, -torch.inf)
