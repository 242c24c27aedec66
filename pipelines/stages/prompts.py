"""Stage `prompts`: captions of the miniature world, six tasks balanced, training and evaluation texts disjoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from infra.dag.stage import Context, Inputs, TableStage
from infra.identity import group_id
from pipelines.miniature.world.grammar import captions
from pipelines.schemas.prompts import Prompt


class Prompts(TableStage):
    """Nothing in; one row a caption out, training captions first."""

    name: ClassVar = "prompts"
    row: ClassVar = Prompt
    cheap: ClassVar = True

    train: int = Field(600, ge=1)
    "Captions to render, judge and learn from."
    evaluation: int = Field(1000, ge=1)
    "Captions that nothing learns from."
    seed: int = Field(0, ge=0)
    "Which training captions; the evaluation captions are the same for every seed."

    def run(self, context: Context) -> Iterator[Prompt]:
        """See the class."""
        del context
        wanted: tuple[tuple[Literal["train", "evaluation"], int, int], ...] = (
            ("train", self.train, self.seed),
            ("evaluation", self.evaluation, 0),
        )
        for split, count, seed in wanted:
            for caption in captions(count, split=split, seed=seed):
                expectation = caption.expectation.to_json()
                yield Prompt(group_id(caption.text), caption.text, caption.task, split, expectation)

    def expected_rows(self, inputs: Inputs) -> int:
        """As many as asked for."""
        del inputs
        return self.train + self.evaluation
