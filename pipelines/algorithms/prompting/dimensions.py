"""Several dimensions of one pair (VideoAlign: visual quality, motion quality, text alignment), in one turn or several.

With a turn for each dimension every answer is one token with log-probabilities, so there are scores. In one turn the model
writes a line for each dimension ("VQ: A"), which is cheaper and has no log-probabilities.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from actors.serving.engine import Answer, Picture, Question
from infra.config import Config, ConfigError
from pipelines.algorithms.prompting.likert import Likert
from pipelines.algorithms.prompting.opinion import Opinion
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.algorithms.prompting.pointwise import Pointwise

TEXTS = ("before", "between", "after")
"""Fields of a questionnaire that are shown."""


class Dimensions(Config):
    """Asks one questionnaire in each of several dimensions.

    Dimensions(asked={"VQ": "Which looks better?", "TA": "Which fits the text better?"})
    """

    kind: Literal["dimensions"] = "dimensions"
    asked: dict[str, str]
    """What each dimension asks, by its name."""
    each: Annotated[Pairwise | Pointwise | Likert, Field(discriminator="kind")] = Pairwise(
        after="Prompt: {caption}. {question}"
    )
    """How each dimension is asked; {question} in its texts stands for what the dimension asks."""
    turns: Literal["each", "one"] = "each"
    """A turn for each dimension, or one turn for all of them."""
    tokens_per_dimension: int = Field(12, ge=2)
    """Longest line of an answer in one turn, in tokens."""

    @model_validator(mode="after")
    def _check(self) -> Dimensions:
        if not self.asked:
            raise ConfigError("Dimensions: nothing is asked; name at least one dimension")
        if not any("{question}" in getattr(self.each, name, "") for name in TEXTS):
            raise ConfigError("Dimensions: no text of each holds {question}, so all dimensions would ask the same")
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Their names, sorted, so that equal configs ask in the same order."""
        return tuple(sorted(self.asked))

    def questions(self, text: str, *, first: Picture, second: Picture | None) -> tuple[Question, ...]:
        """The questions of `each`, by dimension; in one turn those of all dimensions together."""
        if self.turns == "each":
            return tuple(
                question
                for name in self.dimensions
                for question in self._asking(self.asked[name]).questions(text, first=first, second=second)
            )
        *some, last = self.each.answers
        form = f"Answer with one line for each, NAME: {', '.join(some)} or {last}.\n"
        lines = "\n".join(f"{name}: {self.asked[name]}" for name in self.dimensions)
        length = self.tokens_per_dimension * len(self.asked)
        whole = self._asking(form + lines).questions(text, first=first, second=second)
        return tuple(Question(question.parts, question.pictures, max_tokens=length) for question in whole)

    def opinions(self, answers: Sequence[Answer]) -> tuple[Opinion, ...]:
        """One opinion for each dimension; a dimension whose line is missing or unreadable is unparsable."""
        found: list[Opinion] = []
        share = len(answers) // (len(self.asked) if self.turns == "each" else 1)
        for place, name in enumerate(self.dimensions):
            if self.turns == "each":
                own = list(answers[place * share : (place + 1) * share])
            else:
                own = [replace(answer, read=line_of(name, answer.said)) for answer in answers]
            (one,) = self.each.opinions(own)
            found.append(replace(one, dimension=name))
        return tuple(found)

    def _asking(self, what: str) -> Pairwise | Pointwise | Likert:
        shown = {name: getattr(self.each, name) for name in TEXTS if name in type(self.each).model_fields}
        return self.each.model_copy(update={name: value.replace("{question}", what) for name, value in shown.items()})


def line_of(name: str, text: str) -> str:
    """What the text's line "NAME: …" says; "" where there is none, or two that may contradict each other."""
    lines = re.findall(rf"^\W*{re.escape(name)}\W*:\W*(.+?)\W*$", text, flags=re.MULTILINE | re.IGNORECASE)
    return lines[0] if len(lines) == 1 else ""
