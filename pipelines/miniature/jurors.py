"""The miniature's jury: three small vision-language models that see, ask and err differently."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from actors.juror import Juror
from actors.serving.transformers import TransformersEngine
from actors.serving.vllm import VllmEngine
from infra.config import Config
from infra.store.files import Folder
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.algorithms.prompting.pointwise import Pointwise
from pipelines.miniature.juror_architecture import JurorShape
from pipelines.miniature.making.juror_training import JurorTraining

EngineName = Literal["transformers", "vllm"]

WEIGHTS = Path(__file__).parent / "weights"

TRAINING = {
    "idefics3-pointwise": JurorTraining(shape=JurorShape(), questionnaire=Pointwise(), steps=3000, seed=1),
    "idefics3-fine": JurorTraining(
        shape=JurorShape(scale=2, vision_width=64),
        questionnaire=Pointwise(after="{caption}?"),
        steps=2200,
        seed=2,
    ),
    "idefics3-pairwise": JurorTraining(
        shape=JurorShape(),
        questionnaire=Pairwise(),
        continues="idefics3-pointwise",
        steps=1300,
        describing_share=0,
        pointwise_share=0,
        learning_rate=1e-3,
        seed=3,
    ),
}  # how each shipped juror was made


class JurorModel(Config):
    """One member of a jury."""

    name: str
    """Unique within a jury."""
    weights: Folder
    """Folder with model, tokenizer and processor."""
    questionnaire: Pointwise | Pairwise
    """How it is asked."""
    engine: EngineName = "transformers"
    """What runs the model."""

    def juror(self) -> Juror:
        """The actor that judges, not yet opened."""
        engine = VllmEngine if self.engine == "vllm" else TransformersEngine
        return Juror(engine(weights=self.weights), questionnaire=self.questionnaire)


def shipped(*, engine: EngineName = "transformers") -> tuple[JurorModel, ...]:
    """The jury whose weights come with Salon."""
    return tuple(
        JurorModel(name=name, weights=Folder(path=str(WEIGHTS / name)), questionnaire=made.questionnaire, engine=engine)
        for name, made in TRAINING.items()
    )
