"""How an answer is read from free text, reasoning before it and all: by a pattern that is stated, never by a guess."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field, model_validator

from infra.config import Config, ConfigError


class AnswerGrammar(Config):
    """A juror that may reason: what it is told about the form of its answer, and how the answer is read."""

    asks: str = ' Reason first. Then end with a line "Answer: " and one of: {answers}.'
    """Text after the question; {answers} stands for the words that count."""
    after: tuple[str, ...] = ("</think>", "Answer:")
    """Marks in their order: the answer stands behind the last occurrence of each. A mark that does not occur is passed
    over, and then the pattern must fit what is there."""
    pattern: str = r"\A\W*(?P<answer>{answers})\W*\Z"
    """Regular expression of Python that finds the group `answer` in what stands behind the marks; {answers} stands for any
    of the words that count. By default nothing but the word and punctuation may stand there."""
    ignore_case: bool = False
    """Whether "a" is "A"."""
    max_tokens: int = Field(1024, ge=2)
    """Longest answer in tokens, reasoning included; one that is cut off there is unparsable."""

    @model_validator(mode="after")
    def _check(self) -> AnswerGrammar:
        try:
            compiled = re.compile(self.pattern.replace("{answers}", "word"))
        except re.error as error:
            raise ConfigError(f"AnswerGrammar: pattern {self.pattern!r} is no regular expression: {error}") from error
        if "{answers}" not in self.pattern or "answer" not in compiled.groupindex:
            raise ConfigError("AnswerGrammar: the pattern needs {answers} in a group named answer: (?P<answer>{answers})")
        return self

    def question(self, answers: Sequence[str]) -> str:
        """What stands after a question whose answer is one of the words."""
        return self.asks.replace("{answers}", ", ".join(answers))

    def rest(self, text: str) -> str:
        """What stands behind the marks."""
        for mark in self.after:
            text = text.rpartition(mark)[2]
        return text.strip()

    def word(self, text: str, answers: Sequence[str]) -> str:
        """The one word that the text answers; "" where it names none, or two that differ."""
        choices = "|".join(re.escape(word) for word in sorted(answers, key=len, reverse=True))
        flags = re.IGNORECASE if self.ignore_case else 0
        pattern = self.pattern.replace("{answers}", f"(?:{choices})")
        named = {found["answer"] for found in re.finditer(pattern, self.rest(text), flags)}
        if self.ignore_case:
            named = {word for word in answers if word.lower() in {name.lower() for name in named if name}}
        return next(iter(named)) or "" if len(named) == 1 else ""
