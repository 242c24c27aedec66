"""Supervised fine-tuning on the winners: their error, no loser, no reference (ViPO's first stage)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pipelines.algorithms.preference.pairwise import Method, PairBatch, PairLosses, Reference, figures


class SFT(Method):
    """E_w: the generator's own training loss on what won."""

    method: Literal["sft"] = "sft"
    trains_losers: ClassVar[bool] = False

    @property
    def reference(self) -> Reference:
        return "none"

    def losses(self, batch: PairBatch, *, means: Mapping[str, float]) -> PairLosses:
        """The policy's error on each winner: the plain training loss of its generator."""
        del means
        return PairLosses(losses=batch.winner.error, metrics=figures(batch))
