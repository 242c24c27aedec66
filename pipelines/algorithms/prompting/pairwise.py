"""Both pictures in one prompt; the answer is a letter or a tie. Position bias is possible and is to be measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from actors.serving.engine import Answer, Picture, Question
from infra.config import Config, ConfigError
from pipelines.algorithms.prompting.opinion import OVERALL, Choice, Opinion, has_nan, rounded, unparsable


class Pairwise(Config):
    """Asks once: which of two pictures shows the caption."""

    kind: Literal["pairwise"] = "pairwise"
    before: str = ""
    """Text before the first picture."""
    between: str = ""
    """Text between the pictures."""
    after: str = "which shows {caption}?"
    """Text after the second picture; {caption} stands for the prompt's text."""
    first: str = Field("A", min_length=1)
    """Answer for the picture shown first; one token of the model."""
    second: str = Field("B", min_length=1)
    """Answer for the picture shown second; one token of the model."""
    tie: str = Field("tie", min_length=1)
    """Answer for neither; one token of the model."""

    @model_validator(mode="after")
    def _check(self) -> Pairwise:
        if len({self.first, self.second, self.tie}) < 3:
            raise ConfigError(f"Pairwise: answers {self.first!r}, {self.second!r}, {self.tie!r} must differ")
        if "{caption}" not in self.before + self.between + self.after:
            raise ConfigError("Pairwise: no text holds {caption}, so the juror would not know what is asked; add it")
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """One: the overall comparison."""
        return (OVERALL,)

    @property
    def answers(self) -> tuple[str, ...]:
        """The words that count."""
        return (self.first, self.second, self.tie)

    def questions(self, text: str, *, first: Picture, second: Picture | None) -> tuple[Question, ...]:
        """One question with both pictures in the order shown."""
        if second is None:
            raise ConfigError("Pairwise compares two pictures and cannot grade one; ask Pointwise or Likert instead")
        before, between, after = (part.replace("{caption}", text) for part in (self.before, self.between, self.after))
        parts = tuple(part for part in (before, 0, between, 1, after) if part != "")
        return (Question(parts, (first, second), self.answers),)

    def opinions(self, answers: Sequence[Answer]) -> tuple[Opinion, ...]:
        """The letter that was answered; score = log p(first) - log p(second), None where no probabilities are known."""
        (answer,) = answers
        words: dict[str, Choice] = {self.first: "first", self.second: "second", self.tie: "tie"}
        choice = words.get(answer.said)
        if choice is None or has_nan(answers):
            return (unparsable(answer.text),)
        if not answer.log_probabilities:
            return (Opinion(OVERALL, choice, None, None, answer.text),)
        odds = answer.log_probabilities[self.first] - answer.log_probabilities[self.second]
        return (Opinion(OVERALL, choice, rounded(odds), None, answer.text),)
