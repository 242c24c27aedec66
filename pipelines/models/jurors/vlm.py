"""A vision-language model as a juror: an engine that answers questions, and a questionnaire that makes and reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from actors.serving.engine import Answer, OpenAnswerEngine
from actors.serving.transformers import TransformersEngine
from actors.serving.vllm import VllmEngine
from infra.config import ConfigError
from infra.dag.stage import Places
from pipelines.algorithms.prompting.dimensions import Dimensions
from pipelines.algorithms.prompting.likert import Likert
from pipelines.algorithms.prompting.opinion import Opinion
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.algorithms.prompting.pointwise import Pointwise
from pipelines.models.jurors.juror import Case, Juror, OpenJuror
from pipelines.models.weights import Hub, Weights

AnyEngine = Annotated[TransformersEngine | VllmEngine, Field(discriminator="kind")]
"""What runs the model."""
AnyQuestionnaire = Annotated[Pairwise | Pointwise | Likert | Dimensions, Field(discriminator="kind")]
"""How a case becomes questions, and answers become opinions."""


class VlmJuror(Juror):
    """A vision-language model asked by a questionnaire."""

    weights: Weights
    """Model, tokenizer and processor as transformers saves them, safetensors only; of the Hub with `holds = "model"`."""
    questionnaire: AnyQuestionnaire
    """How it is asked."""
    engine: AnyEngine = TransformersEngine()
    """What runs it."""

    @model_validator(mode="after")
    def _of_a_model(self) -> VlmJuror:
        if isinstance(self.weights, Hub) and self.weights.holds != "model":
            raise ConfigError(f"juror {self.name}: {self.weights.repo} is to hold a pipeline; give holds = 'model'")
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Those of the questionnaire."""
        return self.questionnaire.dimensions

    def open(self, device: str, places: Places) -> OpenJuror:
        """Reads the weights."""
        loaded = self.engine.load(self.weights.folder(places), device=device)
        return OpenVlmJuror(loaded, questionnaire=self.questionnaire)


class OpenVlmJuror:
    """The model in memory and its questionnaire."""

    def __init__(self, engine: OpenAnswerEngine, *, questionnaire: AnyQuestionnaire) -> None:
        self.engine = engine
        self.questionnaire = questionnaire

    def judge(self, cases: Sequence[Case]) -> list[tuple[Opinion, ...] | Exception]:
        """Asks all questions of all cases in one call; a case with a failed question is that question's exception."""
        asked = [self.questionnaire.questions(case.prompt, first=case.first, second=case.second) for case in cases]
        answers = iter(self.engine.ask([question for questions in asked for question in questions]))
        return [self._opinions([next(answers) for _ in questions]) for questions in asked]

    def _opinions(self, answers: list[Answer | Exception]) -> tuple[Opinion, ...] | Exception:
        readable: list[Answer] = []
        for answer in answers:
            if isinstance(answer, Exception):
                return answer
            readable.append(answer)
        return self.questionnaire.opinions(readable)
