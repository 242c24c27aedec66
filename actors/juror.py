"""A juror: an engine that answers questions, and a questionnaire that makes them of a pair and reads the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from actors.serving.engine import Answer, Engine, LoadedEngine, Picture, Question


class Verdict(Protocol):
    """One juror's word on one pair as shown."""

    @property
    def raw(self) -> str:
        """The answers' text, untouched."""
        ...

    @property
    def choice(self) -> str:
        """first, second, tie or unparsable: by position, for the juror knows no more."""
        ...

    @property
    def score(self) -> float | None:
        """Log-odds that the first shown is better; None where unparsable."""
        ...


class Questionnaire(Protocol):
    """A picklable config: a pair into questions, answers into a verdict."""

    def questions(self, text: str, *, first: Picture, second: Picture) -> Sequence[Question]:
        """What is asked about one pair in the order shown."""
        ...

    def verdict(self, answers: Sequence[Answer]) -> Verdict:
        """What the answers to these questions say."""
        ...


class Juror:
    """Holds one device. A request that cannot be judged raises; called alone it names itself."""

    def __init__(self, engine: Engine, *, questionnaire: Questionnaire) -> None:
        self.engine = engine
        self.questionnaire = questionnaire
        self._loaded: LoadedEngine | None = None

    def open(self) -> None:
        """Loads the model; once."""
        if self._loaded is None:
            self._loaded = self.engine.load()

    def judge(self, requests: Sequence[tuple[str, Picture, Picture]]) -> list[Verdict]:
        """Verdicts on (prompt's text, picture shown first, picture shown second), in the order of the requests."""
        self.open()
        assert self._loaded is not None
        asked = [self.questionnaire.questions(text, first=first, second=second) for text, first, second in requests]
        answers = iter(self._loaded.ask([question for questions in asked for question in questions]))
        return [self.questionnaire.verdict([next(answers) for _ in questions]) for questions in asked]
