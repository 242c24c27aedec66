"""Recipe `flow_dpo_video`: Flow-DPO, Flow-RWR or SFT with a LoRA on video (Liu et al., 2025, table 10).

LoRA of rank 64 and alpha 128 on the attention's q, k, v and o, learning rate 5e-6, batch 64, one epoch, beta 500. The
paper's model is not public; Wan 2.1 takes its place. Its rewards are VQ, MQ and TA in equal shares (multi-dimensional
alignment), or one of them alone (single-dimensional).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from infra.config import ConfigError
from infra.dag.stage import Stage
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.methods import AnyMethod
from pipelines.algorithms.preference.rwr import RWR
from pipelines.algorithms.preference.scalarisation import Linear
from pipelines.algorithms.preference.sft import SFT
from pipelines.recipes.parts.given import weights_of
from pipelines.recipes.parts.model import ClipModel
from pipelines.recipes.parts.offline import Run, Source, stage
from pipelines.recipes.parts.setup import Setup

PAIRS = 182_000  # annotated triplets of the paper's table 1
DIMENSIONS = ("VQ", "MQ", "TA")
BATCH = 64
AREA = 480 * 832  # of Wan's own 480p
RUN = Run(steps=PAIRS // BATCH, epochs=1.0, batch=BATCH, learning_rate=5e-6, scaled=False)


def flow_dpo_video(
    *,
    method: Annotated[
        Literal["flow_dpo", "flow_dpo_time", "rwr", "sft"],
        Field(description="loss; rwr weighs every clip by its own score, and uses no labels"),
    ] = "flow_dpo",
    scores: Annotated[
        Literal["pairs", "labels"] | None,
        Field(
            description="each clip's own scores, which rwr needs: pairs (columns score_a_NAME and score_b_NAME of the "
            "files; rwr's default) or labels (fitted to the labels within a prompt, with --overall)"
        ),
    ] = None,
    dimensions: Annotated[
        tuple[str, ...], Field(description="dimensions to learn from, NAME or NAME=WEIGHT (default: all three)")
    ] = DIMENSIONS,
    overall: Annotated[bool, Field(description="learn from the overall label, not from dimensions")] = False,
    model: Annotated[ClipModel, Field(description="generator of clips")] = "wan2.1-1.3b",
    beta: Annotated[float, Field(gt=0, description="KL weight: larger stays closer to the reference")] = 500.0,
    frames: Annotated[tuple[int, ...], Field(description="lengths of clips, each 4k + 1")] = (81, 49, 33, 17),
    source: Source = Source(),
    setup: Setup = Setup(zero="1", micro_batch=1),
) -> Stage:
    """import_clips -> encode -> examples -> tune."""
    alignment = None if overall else Linear(weights=weights_of(dimensions))
    if scores == "labels" and not overall:
        raise ConfigError("--scores labels: they say which clip is better, and not in which dimension; add --overall")
    if scores is None and method == "rwr":
        scores = "pairs"
    given: dict[str, Any] = {"alignment": alignment, "scores": scores}
    given["use_of_scores"] = "--method rwr" if method == "rwr" else "--scores pairs"
    given["instead_of_scores"] = "fit scores to the labels with --overall --scores labels"
    data = source.data(expected=PAIRS, area=AREA, clips=True, frames=frames, **given)
    losses: dict[str, AnyMethod] = {
        "flow_dpo": FlowDPO(beta=beta),
        "flow_dpo_time": FlowDPO(beta=beta, weighting="(1-t)^2"),
        "rwr": RWR(),
        "sft": SFT(),
    }
    return stage(source.model(model, "lora"), data, losses[method], RUN.of(source), setup=setup, label=method)
