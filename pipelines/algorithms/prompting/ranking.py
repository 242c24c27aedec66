"""A ranking of up to eight pictures of one prompt (K-wise comparison, as in K-Sort Arena and K-Sort Eval).

One question shows the pictures in one order; stage `rank` asks in each order and its reverse, so that what a juror
prefers for its place shows as a difference of the two rankings. An answer that does not rank every picture exactly once is
unparsable. Of two pictures a ranking is a comparison like any other, and stage `judge` asks it so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from actors.serving.engine import Answer, Picture, Question
from infra.config import Config, ConfigError
from pipelines.algorithms.prompting.opinion import OVERALL, Opinion, decided, unparsable

MOST = 8
"""Pictures of one ranking at most."""


class Ranking(Config):
    """Asks for the order of several pictures, from best to worst."""

    kind: Literal["ranking"] = "ranking"
    label: str = "Image {number}: "
    """Text before each picture; {number} stands for 1, 2, …"""
    after: str = (
        "Rank the {count} images from best to worst by how well they show: {caption}. Judge aesthetics and agreement with "
        'the text equally. End with a line "Answer: " and the numbers in order, for instance "Answer: {example}"; write = '
        "between images that are equally good."
    )
    """Text after the last picture; {caption}, {count} and {example} are filled in."""
    mark: str = Field("Answer:", min_length=1)
    """The ranking is the rest of the line behind its last occurrence; without it, the whole text must be one ranking."""
    max_tokens: int = Field(512, ge=8)
    """Longest answer in tokens, reasoning included."""

    @model_validator(mode="after")
    def _check(self) -> Ranking:
        if "{caption}" not in self.after or "{number}" not in self.label:
            raise ConfigError("Ranking: after must hold {caption} and label {number}; add them")
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """One: the overall order."""
        return (OVERALL,)

    def question(self, text: str, pictures: Sequence[Picture]) -> Question:
        """The question about 2 to 8 pictures in the order given."""
        if not 2 <= len(pictures) <= MOST:
            raise ConfigError(f"Ranking takes 2 to {MOST} pictures, got {len(pictures)}")
        parts: list[str | int] = []
        for place in range(len(pictures)):
            parts += [self.label.replace("{number}", str(place + 1)), place]
        example = " > ".join(str(number) for number in range(len(pictures), 0, -1))
        asked = self.after.replace("{count}", str(len(pictures))).replace("{example}", example)
        return Question((*parts, asked.replace("{caption}", text)), tuple(pictures), max_tokens=self.max_tokens)

    def ranks(self, answer: Answer, *, count: int) -> tuple[int, ...] | None:
        """The rank (1 is best; equal ranks are ties) of each picture as it was shown; None for an unparsable answer."""
        return self.read(answer.said, count=count) if answer.ended else None

    def questions(self, text: str, *, first: Picture, second: Picture | None) -> tuple[Question, ...]:
        """The ranking of two pictures."""
        if second is None:
            raise ConfigError("Ranking compares pictures and cannot grade one; ask Pointwise or Likert instead")
        return (self.question(text, (first, second)),)

    def opinions(self, answers: Sequence[Answer]) -> tuple[Opinion, ...]:
        """Which of two pictures ranks higher; there is no score."""
        (answer,) = answers
        ranks = self.ranks(answer, count=2)
        if ranks is None:
            return (unparsable(answer.text),)
        return (Opinion(OVERALL, decided(ranks[1] - ranks[0], tie_within=0), None, None, answer.text),)

    def read(self, text: str, *, count: int) -> tuple[int, ...] | None:
        """The rank of each picture as it was shown, from "3 > 1 = 2", "3, 1, 2" or "Image 3, Image 1, Image 2"."""
        line = text.rpartition(self.mark)[2].strip().partition("\n")[0].strip(" .*")
        number = r"(?:[Ii]mage\s*)?(\d+)"
        if not re.fullmatch(rf"{number}(?:\s*[>=,]\s*{number})*", line):
            return None
        ranks: dict[int, int] = {}
        place = 0
        for tier in re.split(r"[>,]", line):
            members = [int(found) for found in re.findall(r"\d+", tier)]
            for member in members:
                if member in ranks:
                    return None
                ranks[member] = place + 1
            place += len(members)
        return tuple(ranks[n] for n in range(1, count + 1)) if sorted(ranks) == list(range(1, count + 1)) else None
