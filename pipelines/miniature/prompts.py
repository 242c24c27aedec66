"""Captions of the miniature world as a source of prompts."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from pipelines.miniature.world.grammar import captions
from pipelines.models.prompts import PromptSource, PromptText
from pipelines.schemas.prompts import Split


class Grammar(PromptSource):
    """Captions drawn from the world's grammar: six tasks balanced, training and evaluation texts disjoint."""

    train: int = Field(600, ge=1)
    """Captions to render, judge and learn from."""
    evaluation: int = Field(1000, ge=1)
    """Captions that nothing learns from."""
    seed: int = Field(0, ge=0)
    """Which training captions are drawn; the evaluation captions are the same for every seed."""

    def prompts(self) -> Iterator[PromptText]:
        """Training captions first."""
        wanted: tuple[tuple[Split, int, int], ...] = (("train", self.train, self.seed), ("evaluation", self.evaluation, 0))
        for split, count, seed in wanted:
            for caption in captions(count, split=split, seed=seed):
                expectation = caption.expectation.to_json()
                yield PromptText(caption.text, split, task=caption.task, expectation=expectation, place="grammar")

    def count(self) -> int:
        return self.train + self.evaluation
