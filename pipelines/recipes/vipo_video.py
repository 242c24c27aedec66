"""Recipe `vipo_video`: Poly-DPO straight on Wan 2.1 (ViPO, appendix "Training on ViPO-Video-300K").

2,000 steps of 256 pairs at a base rate of 1e-8 per pair, beta 500, alpha 0. Nothing is resized: a pair keeps its own shape
as far as the model's multiple of 16 px allows, which leaves 720 x 1280 and 1024 x 1024 whole (Wan 2.2's is 32 px). Pairs
of two shapes, which ViPO does not have, meet at the geometric mean. The paper trains Wan 2.1 alone:
other generators get its settings.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from infra.dag.stage import Stage
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.polynomial import AutoAlpha, FixedAlpha
from pipelines.recipes.parts.model import ClipModel
from pipelines.recipes.parts.offline import Run, Source, stage
from pipelines.recipes.parts.setup import Setup

PAIRS = 300_000  # of ViPO-Video-300K
AREA = 720 * 1280
RUN = Run(steps=2000, batch=256, learning_rate=256 * 1e-8)


def vipo_video(
    *,
    model: Annotated[ClipModel, Field(description="generator of clips")] = "wan2.1-1.3b",
    alpha: Annotated[str, Field(pattern=r"^(auto|-?\d+(\.\d+)?)$", description="Poly-DPO's alpha, or auto")] = "0",
    beta: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="KL weight: larger stays closer to the reference")
    ] = 500.0,
    adapter: Annotated[Literal["full", "lora"], Field(description="what is trained")] = "full",
    frames: Annotated[tuple[int, ...], Field(description="lengths of clips, each 4k + 1")] = (81, 49, 33, 17),
    source: Source = Source(),
    setup: Setup = Setup(workers=32, zero="3", micro_batch=1),
) -> Stage:
    """import_clips -> encode -> examples -> tune."""
    polynomial = AutoAlpha() if alpha == "auto" else FixedAlpha(alpha=float(alpha))
    method = FlowDPO(beta=beta, polynomial=polynomial)
    data = source.data(expected=PAIRS, area=AREA, own=True, clips=True, frames=frames)
    return stage(source.model(model, adapter), data, method, RUN.of(source), setup=setup, label="poly")
