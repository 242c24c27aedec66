"""Stage `jury_scores`: one score for every picture from the jury's log-odds on its pairs.

The rewards of reward-weighted regression where nobody scores single pictures. Scores are comparable where pictures are
connected by comparisons, which means within a prompt: each prompt's pictures have mean 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.dag.stage import Context, Inputs, TableStage
from infra.identity import row_id
from pipelines.algorithms.rating.pictures import picture_scores
from pipelines.schemas.evaluation import Score
from pipelines.stages.sources import Labels, Scored

SCORER, DIMENSION, CONVENTION = "jury", "overall", "log-odds within a prompt, mean 0"


class JuryScores(TableStage, Scored):
    """Preferences in; a score per picture out."""

    name: ClassVar = "jury_scores"
    row: ClassVar = Score

    labels: Labels

    def run(self, context: Context) -> Iterator[Score]:
        """Scores in the order of the pictures' ids."""
        labels = context.table(self.labels, ["id", "picture_a", "picture_b", "score"]).sort_by("id")
        sides = [labels[f"picture_{side}"].combine_chunks() for side in "ab"]
        names = sorted({*sides[0].to_pylist(), *sides[1].to_pylist()})
        first, second = (np.asarray(pc.index_in(side, pa.array(names, pa.string()))) for side in sides)
        margin = labels["score"].to_numpy()
        found = picture_scores(first, second=second, margin=margin, pictures=len(names))
        for name, value in zip(names, found.tolist(), strict=True):
            known = value if np.isfinite(value) else None
            yield Score(row_id(name[:12], self.name, name), name, SCORER, DIMENSION, known, CONVENTION)

    def expected_rows(self, inputs: Inputs) -> int | None:
        """Known when the labels are."""
        del inputs
        return None
