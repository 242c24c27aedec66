"""A vision-language model as a juror: an engine that answers questions, and a questionnaire that makes and reads them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from actors.serving.transformers import TransformersEngine
from actors.serving.vllm import VllmEngine
from infra.config import ConfigError
from infra.dag.stage import Places
from pipelines.algorithms.prompting.grammar import AnswerGrammar
from pipelines.algorithms.prompting.ranking import Ranking
from pipelines.models.jurors.asking import AnyQuestionnaire, OpenAskedJuror
from pipelines.models.jurors.juror import Juror, OpenJuror
from pipelines.models.weights import Hub, Weights

AnyEngine = Annotated[TransformersEngine | VllmEngine, Field(discriminator="kind")]
"""What runs the model."""


class VlmJuror(Juror):
    """A vision-language model asked by a questionnaire."""

    weights: Weights
    """Model, tokenizer and processor as transformers saves them, safetensors only; of the Hub with `holds = "model"`."""
    questionnaire: AnyQuestionnaire
    """What the juror is asked, and how an answer is read."""
    grammar: AnswerGrammar | None = None
    """How free text is read, reasoning included; None: the answer is one token, and there are scores."""
    engine: AnyEngine = TransformersEngine()
    """The engine that runs the model: transformers or vLLM."""

    @model_validator(mode="after")
    def _of_a_model(self) -> VlmJuror:
        if isinstance(self.weights, Hub) and self.weights.holds != "model":
            raise ConfigError(f"juror {self.name}: {self.weights.repo} is to hold a pipeline; give holds = 'model'")
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        return self.questionnaire.dimensions

    @property
    def ranks(self) -> bool:
        """Whether the questionnaire is a ranking."""
        return isinstance(self.questionnaire, Ranking)

    def open(self, device: str, places: Places) -> OpenJuror:
        loaded = self.engine.load(self.weights.folder(places), device=device)
        return OpenAskedJuror(loaded, questionnaire=self.questionnaire, grammar=self.grammar)
