"""Recipe `arenapo`: Diffusion-DPO, or DSPO, with margins from an arena of the pairs' generators (ArenaPO, section 5.1).

2,000 steps of 2,048 pairs, everything else as Diffusion-DPO has it (Wallace et al., 2024, section 5.1): beta 2,000 for
SD1.5 and 5,000 for SDXL, learning rate (2000 / beta) 2.048e-8, a quarter of the steps of linear warm-up. The coefficient c
of the gap is searched on a grid in the paper; its value is missing from the text we have, so it is a flag.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from infra.dag.stage import Stage
from pipelines.algorithms.preference.diffusion_dpo import DiffusionDPO
from pipelines.algorithms.preference.dspo import DSPO
from pipelines.algorithms.preference.margin import ArenaMargin, FixedMargin, Margin, NoMargin
from pipelines.recipes.parts.offline import Run, Setup, Source, stage

PAIRS = 851_293  # of Pick-a-Pic v2's training split, ties dropped
SIDES = {"sd15": 512, "sdxl": 1024}
BETAS = {"sd15": 2000.0, "sdxl": 5000.0}


def arenapo(
    *,
    model: Annotated[Literal["sd15", "sdxl"], Field(description="the generator")] = "sd15",
    form: Annotated[Literal["diffusion_dpo", "dspo"], Field(description="loss with the margin")] = "diffusion_dpo",
    margin: Annotated[
        Literal["arena", "fixed", "none"], Field(description="the arena's gaps, one for all, none")
    ] = "arena",
    scale: Annotated[float, Field(ge=0, description="c of the arena's gaps, or the fixed margin itself")] = 0.1,
    adapter: Annotated[Literal["full", "lora"], Field(description="what is trained")] = "full",
    source: Source = Source(),
    setup: Setup = Setup(),
) -> Stage:
    """import -> import_labels -> arena -> examples -> tune."""
    data = source.data(expected=PAIRS, side=SIDES[model], arena=margin == "arena")
    margins: dict[str, Margin] = {"arena": ArenaMargin(scale=scale), "fixed": FixedMargin(value=scale), "none": NoMargin()}
    beta = BETAS[model]
    # DSPO's own beta scales its bracket; the margin is on the scale of `inside`, as Diffusion-DPO has it.
    dspo, dpo = DSPO(inside_beta=beta, margin=margins[margin]), DiffusionDPO(beta=beta, margin=margins[margin])
    method = dspo if form == "dspo" else dpo
    run = Run(steps=2000, batch=2048, learning_rate=2000 / beta * 2.048e-8, warm_up=500)
    return stage(source.model(model, adapter), data, method, run.of(source), setup=setup, label=form)
