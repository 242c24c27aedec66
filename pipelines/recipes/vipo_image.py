"""Recipe `vipo_image`: SFT on winners, then Poly-DPO from there (ViPO, appendix "Training on ViPO-Image-1M").

The paper's settings by model; learning rates are its base rates times the batch. alpha is 0, since nothing in [-1, 1] made
a difference on these data; noisy data without the first stage are the recipe `vipo_pickapic`. Policy and reference of the
second stage are the first one's result. As in
the paper, SD1.5 learns from the 800,000 pairs without text rendering: pairs whose column `subset` says so are left out.

The paper does not train FLUX.2 [klein], Qwen-Image and Z-Image: they get FLUX.1's settings, which nothing has shown to be
the best for them.

FLUX.1-dev is distilled from guidance, and is told 1 while it is trained: that fits data, but the paper's own SFT of FLUX
loses text rendering (.4878 to .2126 in its table). `--guidance 3.5` tells it what it is sampled with.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from infra.dag.stage import Stage
from pipelines.algorithms.preference.diffusion_dpo import DiffusionDPO
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.polynomial import AutoAlpha, FixedAlpha
from pipelines.algorithms.preference.sft import SFT
from pipelines.recipes.parts.model import PictureModel
from pipelines.recipes.parts.offline import Run, Source, stage
from pipelines.recipes.parts.setup import Setup

PAIRS = 1_000_000  # of ViPO-Image-1M
WITHOUT_TEXT = 800_000  # of those, without text rendering
TEXT_RENDERING = "text rendering"
LIKE_FLUX = ("flux.1-dev", "flux.2-klein-4b", "flux.2-klein-9b", "qwen-image", "z-image")
SIDES = {"sd15": 512, "sdxl": 1024, "sd3.5-medium": 1024, **dict.fromkeys(LIKE_FLUX, 1024)}
SFT_RUNS = {
    "sd15": Run(steps=8000, batch=512, learning_rate=512 * 4e-9),
    "sdxl": Run(steps=4000, batch=512, learning_rate=512 * 2e-9),
    "sd3.5-medium": Run(steps=4000, batch=2048, learning_rate=2048 * 1e-8),
    **dict.fromkeys(LIKE_FLUX, Run(steps=4000, batch=2048, learning_rate=2048 * 1e-9)),
}
DPO_RUNS = {
    "sd15": Run(steps=8000, batch=512, learning_rate=512 * 1e-9),
    "sdxl": Run(steps=4000, batch=512, learning_rate=512 * 5e-10),
    "sd3.5-medium": Run(steps=2000, batch=512, learning_rate=512 * 5e-9),
    **dict.fromkeys(LIKE_FLUX, Run(steps=2000, batch=512, learning_rate=512 * 5e-9)),
}
BETAS = {"sd15": 500.0, "sdxl": 1000.0, "sd3.5-medium": 500.0, **dict.fromkeys(LIKE_FLUX, 500.0)}


def vipo_image(
    *,
    model: Annotated[PictureModel, Field(description="generator; sets the paper's hyper-parameters")] = "sd15",
    alpha: Annotated[str, Field(pattern=r"^(auto|-?\d+(\.\d+)?)$", description="Poly-DPO's alpha, or auto")] = "0",
    adapter: Annotated[Literal["full", "lora"], Field(description="what is trained")] = "full",
    beta: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="KL weight: larger stays closer to the reference (default: 500, SDXL 1000)",
        ),
    ] = None,
    sft: Annotated[bool, Field(description="fine-tune on the winners first")] = True,
    guidance: Annotated[float, Field(ge=0, description="guidance that FLUX.1-dev is told while it is trained")] = 1.0,
    source: Source = Source(),
    setup: Setup = Setup(),
) -> Stage:
    """import -> encode -> examples -> tune[sft] -> tune[poly]."""
    chosen = source.model(model, adapter)
    expected = WITHOUT_TEXT if model == "sd15" else PAIRS
    data = source.data(expected=expected, area=SIDES[model] ** 2, without=(TEXT_RENDERING,) if model == "sd15" else ())
    run, alone = SFT_RUNS[model].of(source, last=False), setup.without_draws()
    first = stage(chosen, data, SFT(), run, setup=alone, label="sft", guidance=guidance) if sft else None
    form = DiffusionDPO if chosen.diffusion else FlowDPO
    polynomial = AutoAlpha() if alpha == "auto" else FixedAlpha(alpha=float(alpha))
    method = form(beta=beta or BETAS[model], polynomial=polynomial)
    run = DPO_RUNS[model].of(source)
    return stage(chosen, data, method, run, setup=setup, label="poly", start=first, guidance=guidance)
