"""A ranking of up to eight pictures of one prompt (K-wise comparison, as in K-Sort Arena and K-Sort Eval).

The pictures are asked about in the order given and in the reverse order: what a juror prefers for its place shows as a
difference of the two rankings. An answer that does not rank every picture exactly once is unparsable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field, model_validator

from actors.serving.engine import Answer, Picture, Question
from infra.config import Config, ConfigError

MOST = 8
"""Pictures of one ranking at most."""


class Ranking(Config):
    """Asks for the order of several pictures, from best to worst."""

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

    def questions(self, text: str, pictures: Sequence[Picture]) -> tuple[Question, Question]:
        """The question about 2 to 8 pictures in the order given, and in the reverse order."""
        if not 2 <= len(pictures) <= MOST:
            raise ConfigError(f"Ranking takes 2 to {MOST} pictures, got {len(pictures)}")
        return self._question(text, tuple(pictures)), self._question(text, tuple(pictures)[::-1])

    def ranks(self, answers: Sequence[Answer], *, count: int) -> tuple[tuple[int, ...] | None, ...]:
        """For each of the two orders the rank (1 is best; equal ranks are ties) of each picture as given to `questions`.

        None where the answer is unparsable.
        """
        forth, back = (None if not answer.ended else self.read(answer.text, count=count) for answer in answers)
        return forth, None if back is None else back[::-1]

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

    def _question(self, text: str, pictures: tuple[Picture, ...]) -> Question:
        parts: list[str | int] = []
        for place in range(len(pictures)):
            parts += [self.label.replace("{number}", str(place + 1)), place]
        example = " > ".join(str(number) for number in range(len(pictures), 0, -1))
        asked = self.after.replace("{count}", str(len(pictures))).replace("{example}", example)
        return Question((*parts, asked.replace("{caption}", text)), pictures, max_tokens=self.max_tokens)
