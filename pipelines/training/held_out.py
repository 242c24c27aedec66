"""Held-out pairs of reward models: which prompts are put aside, chosen by hash, and how well scores order their pairs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from infra.identity import seed_of
from pipelines.algorithms.reward.accuracy import GRID, by_band, by_time
from pipelines.algorithms.reward.bradley_terry import A_WINS, TIE
from pipelines.schemas.training import NoisedScore, RewardAccuracy, RewardBand, RewardScore
from pipelines.training.data import OpenTrainingData


def held_out_pairs(prompts: Sequence[str], *, share: float) -> Bool[np.ndarray, " pairs"]:
    """Whether each pair, given by the id of its prompt, is put aside; `share` of the prompts are, in (0, 1)."""
    return np.array([seed_of("held out", prompt) % 1000 < 1000 * share for prompt in prompts], dtype=bool)


@dataclass(frozen=True)
class HeldOutPairs:
    """The leads of a dimension's scores on held-out pairs, and what intervals are made from."""

    difference: np.ndarray
    """float[times of GRID, pairs]: score of the winner minus that of the loser; of a tie, of A minus B."""
    outcome: np.ndarray
    """int[pairs]: A_WINS, or TIE."""
    prompts: Sequence[Hashable]
    """Id or number of each pair's prompt: intervals resample prompts."""

    @classmethod
    def of(cls, scores: Sequence[RewardScore], data: OpenTrainingData, *, dimension: str) -> HeldOutPairs:
        """From the scores of all pairs of the data at all times."""
        leads = {(row.t, row.pair): row.winner - row.loser for row in scores if row.dimension == dimension}
        difference = np.array([[leads[t, name] for name in data.ids.to_pylist()] for t in GRID])
        prompts = data.table["prompt"].combine_chunks().dictionary_encode().indices.to_pylist()
        return cls(difference, np.where(data.numbers("tie") > 0, TIE, A_WINS), prompts)

    @classmethod
    def of_rows(cls, rows: Sequence[NoisedScore]) -> tuple[HeldOutPairs, int]:
        """From one dimension's rows, and the number of pairs left out, which lack a score at some time."""
        pairs = {row.pair: row for row in rows}
        place = {name: number for number, name in enumerate(pairs)}
        difference = np.full((len(GRID), len(pairs)), np.nan)
        for row in rows:
            if row.winner is not None and row.loser is not None:
                difference[GRID.index(row.t), place[row.pair]] = row.winner - row.loser
        scored = np.asarray(np.isfinite(difference).all(axis=0))
        kept = [row for row, there in zip(pairs.values(), scored.tolist(), strict=True) if there]
        outcome = np.array([TIE if row.tie else A_WINS for row in kept], dtype=int)
        return cls(difference[:, scored], outcome, [row.prompt_id for row in kept]), len(pairs) - len(kept)

    @property
    def _given(self) -> dict[str, Any]:
        generator = np.random.default_rng(seed_of("accuracy", "interval"))
        return {"t": GRID, "outcome": self.outcome, "groups": self.prompts, "generator": generator}

    def at_times(self) -> list[RewardAccuracy]:
        """How often the scores order a pair as its label does, at each time of GRID."""
        return [
            RewardAccuracy(
                t=row.t,
                accuracy=row.excluded.estimate,
                low=row.excluded.low,
                high=row.excluded.high,
                pairs=row.excluded.n,
                accuracy_with_ties=row.included.accuracy,
                tie_threshold=row.included.threshold,
                pairs_with_ties=len(self.outcome),
            )
            for row in by_time(self.difference, **self._given)
        ]

    def in_bands(self, *, dimension: str) -> list[RewardBand]:
        """The accuracies' means over low, high and all noise levels."""
        found = by_band(self.difference, **self._given)
        return [RewardBand(dimension, band, row.estimate, row.low, row.high, row.n) for band, row in found.items()]
