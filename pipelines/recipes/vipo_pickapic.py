"""Recipe `vipo_pickapic`: Poly-DPO on noisy pairs, SD1.5 on Pick-a-Pic v2 (ViPO, "Training on Pick-a-pic V2 Dataset").

No SFT; 4,500 steps of 512 pairs at 512 x 4e-9, alpha 8 (0 is Diffusion-DPO, for which the paper takes 8,000 steps). Where
the paper is silent, the settings are those of Diffusion-DPO's public code, on which it stands: beta 5000, 500 steps of
warm-up, weight decay 0.01, a fifth of the texts left out, flips, squares of 512 px cropped in the middle. That code samples
latents from the posterior of the VAE; Salon encodes once, and takes the mean.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from actors.training.engines.engine import AdamW
from infra.dag.stage import Stage
from pipelines.algorithms.preference.diffusion_dpo import DiffusionDPO
from pipelines.algorithms.preference.polynomial import AutoAlpha, FixedAlpha
from pipelines.recipes.parts.offline import Run, Source, stage
from pipelines.recipes.parts.setup import Setup

PAIRS = 851_293  # of Pick-a-Pic v2's training split, ties dropped
BASE_RATE = 4e-9  # per pair of a step
OPTIMIZER = AdamW(betas=(0.9, 0.999), weight_decay=0.01)
RUN = Run(steps=4500, batch=512, learning_rate=512 * BASE_RATE, warm_up=500, optimizer=OPTIMIZER, caption_dropout=0.2)


def vipo_pickapic(
    *,
    alpha: Annotated[str, Field(pattern=r"^(auto|-?\d+(\.\d+)?)$", description="alpha of Poly-DPO, or auto")] = "8",
    beta: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="KL weight: larger stays closer to the reference")
    ] = 5000.0,
    flips: Annotated[bool, Field(description="exchange left and right of half of the pairs")] = True,
    source: Source = Source(),
    setup: Setup = Setup(),
) -> Stage:
    """import -> encode -> examples -> tune."""
    polynomial = AutoAlpha() if alpha == "auto" else FixedAlpha(alpha=float(alpha))
    data = source.data(expected=PAIRS, area=512 * 512, square=True, flips=flips)
    method = DiffusionDPO(beta=beta, polynomial=polynomial)
    return stage(source.model("sd15", "full"), data, method, RUN.of(source), setup=setup, label="poly")
