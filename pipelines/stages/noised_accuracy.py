"""Stage `noised_accuracy`: how often a scorer of pictures orders noised pairs as people do, at each noise level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from infra.config import ConfigError
from infra.dag.stage import Context, TableStage
from infra.store.tables import from_table
from pipelines.schemas.training import NoisedScore, RewardAccuracy, RewardBand
from pipelines.stages.noised_scores import NoisedScores
from pipelines.training.held_out import HeldOutPairs


class NoisedAccuracy(TableStage):
    """Scores of noised pairs in; a row per time out, as of stage `reward`, and the means over bands of times beside."""

    name: ClassVar = "noised_accuracy"
    version: ClassVar = 1
    row: ClassVar = RewardAccuracy
    tables: ClassVar[Mapping[str, type]] = {"bands": RewardBand}

    scores: NoisedScores

    def run(self, context: Context) -> Iterator[RewardAccuracy]:
        """Over the pairs that were scored at every time."""
        pairs, unscored = HeldOutPairs.of_rows(list(from_table(context.table(self.scores), NoisedScore)))
        context.metric("unscored_pairs", unscored)
        if not pairs.prompts:
            raise ConfigError(f"noised_accuracy: {self.scores.scorer.name} scored no pair at every time; see its errors")
        context.emit("bands", pairs.in_bands(dimension=self.scores.dimension))
        yield from pairs.at_times()
