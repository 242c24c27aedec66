"""Each picture on its own: does it show the caption? The pair's answer is the difference of the two log-odds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from actors.serving.engine import Answer, Picture, Question
from infra.config import Config, ConfigError
from pipelines.algorithms.prompting.opinion import OVERALL, Opinion, decided, has_nan, rounded, unparsable


class Pointwise(Config):
    """Asks once for each picture; knows no position, so it cannot be biased by it."""

    kind: Literal["pointwise"] = "pointwise"
    before: str = ""
    """Text before the picture."""
    after: str = "does this show {caption}?"
    """Text after the picture; {caption} stands for the prompt's text."""
    yes: str = Field("yes", min_length=1)
    """Answer for a picture that fits; one token of the model."""
    no: str = Field("no", min_length=1)
    """Answer for a picture that does not fit; one token of the model."""
    tie_within: float = Field(0.8, ge=0)
    """Difference of log-odds (natural logarithm) up to which two pictures are a tie."""

    @model_validator(mode="after")
    def _check(self) -> Pointwise:
        if self.yes == self.no:
            raise ConfigError(f"Pointwise: both answers are {self.yes!r}; they must differ")
        if "{caption}" not in self.before + self.after:
            raise ConfigError("Pointwise: no text holds {caption}, so the juror would not know what is asked; add it")
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """One: whether the caption is shown."""
        return (OVERALL,)

    @property
    def answers(self) -> tuple[str, ...]:
        """The words that count."""
        return (self.yes, self.no)

    def questions(self, text: str, *, first: Picture, second: Picture | None) -> tuple[Question, ...]:
        """The same question about each picture, in the order shown."""
        before, after = (part.replace("{caption}", text) for part in (self.before, self.after))
        parts = tuple(part for part in (before, 0, after) if part != "")
        pictures = (first,) if second is None else (first, second)
        return tuple(Question(parts, (picture,), self.answers) for picture in pictures)

    def opinions(self, answers: Sequence[Answer]) -> tuple[Opinion, ...]:
        """Which picture is more surely a yes; unparsable where either answer is neither yes nor no.

        Where no probabilities are known, a yes is better than a no, equal answers tie, and there is no score.
        """
        raw = " | ".join(answer.text for answer in answers)
        if any(answer.said not in self.answers for answer in answers) or has_nan(answers):
            return (unparsable(raw),)
        if not all(answer.log_probabilities for answer in answers):
            said = [float(answer.said == self.yes) for answer in answers]
            choice = decided(said[0] - said[1], tie_within=0) if len(said) == 2 else None
            return (Opinion(OVERALL, choice, None, None, raw),)
        odds = [a.log_probabilities[self.yes] - a.log_probabilities[self.no] for a in answers]
        if len(odds) == 1:
            return (Opinion(OVERALL, None, rounded(odds[0]), None, raw),)
        lead = rounded(odds[0] - odds[1])
        return (Opinion(OVERALL, decided(lead, tie_within=self.tie_within), lead, None, raw),)
