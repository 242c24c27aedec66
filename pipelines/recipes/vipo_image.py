"""Recipe `vipo_image`: SFT on winners, then Poly-DPO from there (ViPO, appendix "Training on ViPO-Image-1M").

The paper's settings by model; learning rates are its base rates times the batch. alpha is 0 for good data, 8 for noisy
(Pick-a-Pic v2), negative for trivial pairs. Policy and reference of the second stage are the first one's result.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from infra.dag.stage import Stage
from pipelines.algorithms.preference.diffusion_dpo import DiffusionDPO
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.polynomial import AutoAlpha, FixedAlpha
from pipelines.algorithms.preference.sft import SFT
from pipelines.recipes.parts.offline import Run, Setup, Source, stage

PAIRS = 1_000_000  # of ViPO-Image-1M
SIDES = {"sd15": 512, "sdxl": 1024, "sd3.5-medium": 1024, "flux.1-dev": 1024}
SFT_RUNS = {
    "sd15": Run(steps=8000, batch=512, learning_rate=512 * 4e-9),
    "sdxl": Run(steps=4000, batch=512, learning_rate=512 * 2e-9),
    "sd3.5-medium": Run(steps=4000, batch=2048, learning_rate=2048 * 1e-8),
    "flux.1-dev": Run(steps=4000, batch=2048, learning_rate=2048 * 1e-9),
}
DPO_RUNS = {
    "sd15": Run(steps=8000, batch=512, learning_rate=512 * 1e-9),
    "sdxl": Run(steps=4000, batch=512, learning_rate=512 * 5e-10),
    "sd3.5-medium": Run(steps=2000, batch=512, learning_rate=512 * 5e-9),
    "flux.1-dev": Run(steps=2000, batch=512, learning_rate=512 * 5e-9),
}
BETAS = {"sd15": 500.0, "sdxl": 1000.0, "sd3.5-medium": 500.0, "flux.1-dev": 500.0}


def vipo_image(
    *,
    model: Annotated[
        Literal["sd15", "sdxl", "sd3.5-medium", "flux.1-dev"],
        Field(description="generator; sets the paper's hyper-parameters"),
    ] = "sd15",
    alpha: Annotated[str, Field(pattern=r"^(auto|-?\d+(\.\d+)?)$", description="Poly-DPO's alpha, or auto")] = "0",
    adapter: Annotated[Literal["full", "lora"], Field(description="what is trained")] = "full",
    sft: Annotated[bool, Field(description="fine-tune on the winners first")] = True,
    source: Source = Source(),
    setup: Setup = Setup(),
) -> Stage:
    """import -> encode -> examples -> tune[sft] -> tune[poly]."""
    chosen = source.model(model, adapter)
    data = source.data(expected=PAIRS, side=SIDES[model])
    first = (
        stage(chosen, data, SFT(), SFT_RUNS[model].of(source), setup=setup.without_draws(), label="sft") if sft else None
    )
    form = DiffusionDPO if chosen.diffusion else FlowDPO
    polynomial = AutoAlpha() if alpha == "auto" else FixedAlpha(alpha=float(alpha))
    method = form(beta=BETAS[model], polynomial=polynomial)
    return stage(chosen, data, method, DPO_RUNS[model].of(source), setup=setup, label="poly", start=first)
