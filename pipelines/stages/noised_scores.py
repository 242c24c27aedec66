"""Stage `noised_scores`: what a scorer of pictures says of held-out pairs at every noise level.

The pixel-space rows of by-timestep tables: pairs are noised as the reward stage noises them, decoded, and scored like clean
pictures. Its prompts, times and noises are those of stage `reward`, so that the two compare pair by pair.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from infra.config import ConfigError
from infra.dag.stage import Inputs, RowStage, RunInputs, Stage, Worker
from infra.identity import key_of, row_id
from pipelines.algorithms.reward.accuracy import GRID
from pipelines.models.families.base import Family
from pipelines.models.rewards.reward import Shown
from pipelines.models.scorers.scorer import Scorer
from pipelines.schemas.training import NoisedScore
from pipelines.stages.examples import Examples
from pipelines.training.data import COLUMNS
from pipelines.training.held_out import held_out_pairs
from pipelines.training.noised_scores import NoisedScoreWorker


class NoisedScores(RowStage):
    """Examples in; a row for each held-out pair and time out."""

    name: ClassVar = "noised_scores"
    row: ClassVar = NoisedScore

    examples: Examples
    policy: Family
    "The generator whose VAE decodes, and which predicts clean latents where these are shown."
    scorer: Scorer
    "What is shown the decoded pictures."
    dimension: str = "overall"
    "Which of the scorer's dimensions is kept."
    shown: Shown = "x_0"
    'What is decoded: "x_t", the noised latents, or "x_0", what the generator predicts from them in one step.'
    held_out: float = Field(0.2, gt=0, lt=1)
    "Share of the training prompts whose pairs are measured; that of the reward model that is compared."
    at_once: int = Field(16, ge=1, exclude=True)
    "Pairs that are decoded together."
    shard_rows: int = Field(512, ge=1)
    "Rows per file and per call."

    @model_validator(mode="after")
    def _possible(self) -> NoisedScores:
        if self.dimension not in self.scorer.dimensions:
            known = ", ".join(self.scorer.dimensions)
            raise ConfigError(f"noised_scores: {self.scorer.name} has no dimension {self.dimension!r}; choose of {known}")
        if self.scorer.of_group:
            raise ConfigError(f"noised_scores: {self.scorer.name} scores groups of samples; give a scorer of single ones")
        return self

    def cells(self, inputs: Inputs) -> pa.Table:
        """The columns of a held-out example, its pair, prompt and text, and the time; ties are measured too."""
        maker = key_of([self.name, self.version, self.policy, self.scorer, self.dimension, self.shown])
        examples = inputs.table(self.examples, [*COLUMNS, "prompt_id", "text"])
        examples = examples.filter(pa.array(held_out_pairs(examples["prompt_id"].to_pylist(), share=self.held_out)))
        if not examples.num_rows:
            raise ConfigError(f"noised_scores: no prompt is put aside with held_out = {self.held_out}; raise it")
        named = zip(*(examples[name].to_pylist() for name in ("id", "winner", "loser", "prompt")), strict=True)
        ids = [row_id(row[0], maker, *row, str(t)) for row in named for t in GRID]
        many = examples.take(pa.array(np.repeat(np.arange(examples.num_rows), len(GRID))))
        many = many.append_column("example", many["id"])
        many = many.append_column("t", pa.array(np.tile(GRID, examples.num_rows)))
        return many.set_column(many.column_names.index("id"), "id", pa.array(ids, pa.string()))

    def looks_up(self) -> dict[str, Stage]:
        """The worker reads latents and texts by id."""
        return dict.fromkeys(("winner", "loser", "prompt"), self.examples.encoded)

    def worker(self, inputs: RunInputs) -> Worker:
        """The generator, the scorer and the latents; ConfigError where the latents are of another VAE."""
        encoded = self.examples.encoded
        policy = self.policy.placed(inputs)
        policy.refuse_latents_of(encoded.encoders.family.placed(inputs), stage=self.name)
        settings = {"shown": self.shown, "dimension": self.dimension, "at_once": self.at_once}
        return NoisedScoreWorker(self.scorer, policy, inputs.lookup(encoded), empty=encoded.text_id(""), **settings)
