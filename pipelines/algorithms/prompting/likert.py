"""Grades from 1 to 5 of each picture on its own, and the expected grade from the model's log-probabilities.

The expectation over the grades' probabilities tells apart pictures whose most likely grades are equal. The pair's score is
the difference of the two expectations, in grades.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from actors.serving.engine import Answer, Picture, Question
from infra.config import Config, ConfigError
from pipelines.algorithms.prompting.opinion import OVERALL, Opinion, decided, has_nan, rounded, unparsable


class Likert(Config):
    """Asks for a grade of each picture; knows no position."""

    kind: Literal["likert"] = "likert"
    dimension: str = Field(OVERALL, min_length=1)
    """Name of the dimension that is graded."""
    before: str = ""
    """Text before the picture."""
    after: str = "How well does this show: {caption}? Answer with a grade from 1 (not at all) to 5 (perfectly)."
    """Text after the picture; {caption} stands for the prompt's text."""
    grades: tuple[str, ...] = ("1", "2", "3", "4", "5")
    """The answers from worst to best, one token each; the first is grade 1."""
    tie_within: float = Field(0.25, ge=0)
    """Difference of expected grades up to which two pictures are a tie."""

    @model_validator(mode="after")
    def _check(self) -> Likert:
        if len(self.grades) < 2 or len(set(self.grades)) < len(self.grades):
            raise ConfigError(f"Likert: grades {self.grades} must be at least two different answers")
        if "{caption}" not in self.before + self.after:
            raise ConfigError("Likert: no text holds {caption}, so the juror would not know what is asked; add it")
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The one that is graded."""
        return (self.dimension,)

    @property
    def answers(self) -> tuple[str, ...]:
        """The words that count."""
        return self.grades

    def questions(self, text: str, *, first: Picture, second: Picture | None) -> tuple[Question, ...]:
        """The same question about each picture, in the order shown."""
        before, after = (part.replace("{caption}", text) for part in (self.before, self.after))
        parts = tuple(part for part in (before, 0, after) if part != "")
        pictures = (first,) if second is None else (first, second)
        return tuple(Question(parts, (picture,), self.grades) for picture in pictures)

    def opinions(self, answers: Sequence[Answer]) -> tuple[Opinion, ...]:
        """A single picture's grade and expected grade, or which of two has the higher expectation."""
        raw = " | ".join(answer.text for answer in answers)
        if any(answer.said not in self.grades for answer in answers) or has_nan(answers):
            return (unparsable(raw, dimension=self.dimension),)
        expected = [expected_grade(answer, grades=self.grades) for answer in answers]
        if len(expected) == 1:
            grade = 1 + self.grades.index(answers[0].said)
            return (Opinion(self.dimension, None, rounded(expected[0]), grade, raw),)
        lead = rounded(expected[0] - expected[1])
        return (Opinion(self.dimension, decided(lead, tie_within=self.tie_within), lead, None, raw),)


def expected_grade(answer: Answer, *, grades: Sequence[str]) -> float:
    """sum_k k p_k / sum_k p_k over grades k = 1, 2, ...: the model's expectation, given that it answers with a grade.

    The grade that was said where no probabilities are known.
    """
    if not answer.log_probabilities:
        return 1.0 + list(grades).index(answer.said)
    log_p = [answer.log_probabilities[grade] for grade in grades]
    top = max(log_p)
    weights = [math.exp(value - top) for value in log_p]
    return sum(k * weight for k, weight in enumerate(weights, start=1)) / sum(weights)
