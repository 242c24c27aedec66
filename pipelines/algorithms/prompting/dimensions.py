"""Several dimensions of one pair (VideoAlign: visual quality, motion quality, text alignment), in one turn or several.

With a turn for each dimension every answer is one token with log-probabilities, so there are scores. In one turn the model
writes a line for each dimension ("VQ: A"), which is cheaper and has no scores.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from actors.serving.engine import Answer, Picture, Question
from infra.config import Config, ConfigError
from pipelines.algorithms.prompting.opinion import Choice, Opinion, unparsable
from pipelines.algorithms.prompting.pairwise import Pairwise


class Dimensions(Config):
    """Asks about two pictures in each of several dimensions."""

    kind: Literal["dimensions"] = "dimensions"
    asked: dict[str, str]
    """What each dimension asks, by its name: {"TA": "which fits the text better?", ...}."""
    turns: Literal["each", "one"] = "each"
    """A turn for each dimension, or one turn for all of them."""
    before: str = ""
    """Text before the first picture."""
    between: str = ""
    """Text between the pictures."""
    after: str = "Prompt: {caption}. "
    """Text after the second picture, before what is asked; {caption} stands for the prompt's text."""
    first: str = Field("A", min_length=1)
    """Answer for the picture shown first."""
    second: str = Field("B", min_length=1)
    """Answer for the picture shown second."""
    tie: str = Field("tie", min_length=1)
    """Answer for neither."""
    tokens_per_dimension: int = Field(12, ge=2)
    """Longest line of an answer in one turn, in tokens."""

    @model_validator(mode="after")
    def _check(self) -> Dimensions:
        if not self.asked:
            raise ConfigError("Dimensions: nothing is asked; name at least one dimension")
        for name in self.asked:
            self._pairwise(name)
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Their names, sorted, so that equal configs ask in the same order."""
        return tuple(sorted(self.asked))

    def questions(self, text: str, *, first: Picture, second: Picture | None) -> tuple[Question, ...]:
        """One question for each dimension, or one for all."""
        if second is None:
            raise ConfigError("Dimensions compares two pictures and cannot grade one; ask Likert instead")
        if self.turns == "each":
            return tuple(self._pairwise(name).questions(text, first=first, second=second)[0] for name in self.dimensions)
        lines = "\n".join(f"{name}: {self.asked[name]}" for name in self.dimensions)
        form = f"Answer with one line for each, NAME: {self.first}, {self.second} or {self.tie}.\n"
        whole = self._pairwise(self.dimensions[0]).model_copy(update={"after": f"{self.after}{form}{lines}"})
        (question,) = whole.questions(text, first=first, second=second)
        length = self.tokens_per_dimension * len(self.asked)
        return (Question(question.parts, question.pictures, max_tokens=length),)

    def opinions(self, answers: Sequence[Answer]) -> tuple[Opinion, ...]:
        """One opinion for each dimension; a dimension whose line is missing or unreadable is unparsable."""
        if self.turns == "one":
            return tuple(self._written(name, answers[0].text) for name in self.dimensions)
        found: list[Opinion] = []
        for name, answer in zip(self.dimensions, answers, strict=True):
            (one,) = self._pairwise(name).opinions([answer])
            found.append(Opinion(name, one.choice, one.score, one.grade, one.raw))
        return tuple(found)

    def _pairwise(self, name: str) -> Pairwise:
        return Pairwise(
            before=self.before,
            between=self.between,
            after=self.after + self.asked[name],
            first=self.first,
            second=self.second,
            tie=self.tie,
        )

    def _written(self, name: str, text: str) -> Opinion:
        words: dict[str, Choice] = {self.first: "first", self.second: "second", self.tie: "tie"}
        lines = re.findall(rf"^\W*{re.escape(name)}\W*:\W*(.+?)\W*$", text, flags=re.MULTILINE | re.IGNORECASE)
        if len(lines) != 1 or lines[0] not in words:  # no line, or two lines that may contradict each other
            return unparsable(text, dimension=name)
        return Opinion(name, words[lines[0]], None, None, text)
