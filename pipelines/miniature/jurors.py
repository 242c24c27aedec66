"""The miniature's jury: three small vision-language models that see, ask and err differently."""

from __future__ import annotations

from pathlib import Path

from actors.serving.transformers import TransformersEngine
from infra.store.files import Folder
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.algorithms.prompting.pointwise import Pointwise
from pipelines.miniature.juror_architecture import JurorShape
from pipelines.miniature.making.juror_training import JurorTraining
from pipelines.models.jurors.vlm import AnyEngine, VlmJuror

TRANSFORMERS = TransformersEngine()
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


def shipped(*, engine: AnyEngine = TRANSFORMERS) -> tuple[VlmJuror, ...]:
    """The jury whose weights come with Salon."""
    return tuple(
        VlmJuror(name=name, weights=Folder(path=str(WEIGHTS / name)), questionnaire=made.questionnaire, engine=engine)
        for name, made in TRAINING.items()
    )
