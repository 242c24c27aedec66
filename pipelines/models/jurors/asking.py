"""What every vision-language juror has: a questionnaire, and a grammar where it answers in free text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from actors.serving.engine import Answer, OpenAnswerEngine, Question
from infra.config import ConfigError
from pipelines.algorithms.prompting.dimensions import Dimensions
from pipelines.algorithms.prompting.grammar import AnswerGrammar
from pipelines.algorithms.prompting.likert import Likert
from pipelines.algorithms.prompting.opinion import Opinion
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.algorithms.prompting.pointwise import Pointwise
from pipelines.algorithms.prompting.ranking import Ranking
from pipelines.models.jurors.juror import Case, RankingCase, RankingOpinion

AnyQuestionnaire = Annotated[Pairwise | Pointwise | Likert | Dimensions | Ranking, Field(discriminator="kind")]
"""How a case becomes questions, and answers become opinions."""


class OpenAskedJuror:
    """A model that answers, and its questionnaire."""

    def __init__(self, engine: OpenAnswerEngine, *, questionnaire: AnyQuestionnaire, grammar: AnswerGrammar | None) -> None:
        self.engine = engine
        self.questionnaire = questionnaire
        self.grammar = grammar

    def judge(self, cases: Sequence[Case]) -> list[tuple[Opinion, ...] | Exception]:
        """Asks all questions of all cases in one call; a case with a failed question is that question's exception."""
        asked = [self.questionnaire.questions(case.prompt, first=case.first, second=case.second) for case in cases]
        answers = iter(self._heard([question for questions in asked for question in questions]))
        return [self._opinions([next(answers) for _ in questions]) for questions in asked]

    def rank(self, cases: Sequence[RankingCase]) -> list[RankingOpinion | Exception]:
        """Asks one question for each case, all in one call; ConfigError where the questionnaire is no ranking."""
        asking = self.questionnaire
        if not isinstance(asking, Ranking):
            raise ConfigError(f"a questionnaire of kind {asking.kind} cannot rank; take one of kind ranking")
        heard = self._heard([asking.question(case.prompt, case.pictures) for case in cases])
        return [
            answer
            if isinstance(answer, Exception)
            else RankingOpinion(asking.ranks(answer, count=len(case.pictures)), answer.text)
            for case, answer in zip(cases, heard, strict=True)
        ]

    def _heard(self, questions: list[Question]) -> list[Answer | Exception]:
        """The engine's answers, read by the grammar where there is one."""
        if self.grammar is None:
            return self.engine.ask(questions)
        free = self.engine.ask([written(question, grammar=self.grammar) for question in questions])
        return [read(answer, question, grammar=self.grammar) for question, answer in zip(questions, free, strict=True)]

    def _opinions(self, answers: list[Answer | Exception]) -> tuple[Opinion, ...] | Exception:
        readable: list[Answer] = []
        for answer in answers:
            if isinstance(answer, Exception):
                return answer
            readable.append(answer)
        return self.questionnaire.opinions(readable)


def written(question: Question, *, grammar: AnswerGrammar) -> Question:
    """The question, to be answered in free text of the grammar's form."""
    parts = (*question.parts, grammar.question(question.answers)) if question.answers else question.parts
    return replace(question, parts=parts, answers=(), max_tokens=max(question.max_tokens, grammar.max_tokens))


def read(answer: Answer | Exception, question: Question, *, grammar: AnswerGrammar) -> Answer | Exception:
    """The answer with the word that the grammar reads from it, or, of several lines, with what stands behind the marks."""
    if isinstance(answer, Exception):
        return answer
    if not answer.ended:
        return replace(answer, read="")
    word = grammar.word(answer.text, question.answers) if question.answers else grammar.rest(answer.text)
    return replace(answer, read=word)
