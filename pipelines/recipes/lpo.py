"""Recipe `lpo`: LPO on a rectified flow (Zhang et al., 2025; on SD3.5-medium as a baseline of SLRM + TAPO).

SPO with a latent reward model from the first step on: four candidates, beta 500, ratios clipped by 0.1, and a threshold
that grows with the noise of the step, from 0.45 to 0.6 (published for SDXL). The candidates are scored at their own time;
the public code tells the reward model the time of the step's start. LoRA, rate and prompts per update are TAPO's, ten
epochs are SPO's.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from infra.dag.stage import Stage
from pipelines.algorithms.online.keep import NoiseThreshold
from pipelines.recipes.parts import online
from pipelines.recipes.parts.reinforced import GUIDANCE, OnlineModel, OnlineRun, OnlineSource, reinforce
from pipelines.recipes.parts.rewarded import RewardName
from pipelines.recipes.parts.setup import Setup

RUN = OnlineRun(steps=5000, prompts_per_round=8, learning_rate=1e-4, rank=64)


def lpo(
    *,
    prompts: Annotated[str, Field(description="file or folder of prompts to learn from")],
    model: Annotated[OnlineModel, Field(description="generator to train")] = "sd3.5-medium",
    reward: Annotated[RewardName, Field(description="kind of reward model")] = "lrm",
    candidates: Annotated[int, Field(ge=2, le=64, description="candidates per state")] = 4,
    thresholds: Annotated[
        tuple[float, float], Field(description="least lead of the best candidate at the lowest and at the highest noise")
    ] = (0.45, 0.6),
    beta: Annotated[float, Field(gt=0, le=1e6, description="KL weight")] = 500.0,
    source: OnlineSource = OnlineSource(),
    setup: Setup = Setup(workers=8, zero="2", micro_batch=4),
) -> Stage:
    """import -> encode -> examples -> reward, prompts -> encode_texts; both -> reinforce."""
    lowest, highest = thresholds
    method = online.candidate_pairs(
        sampling_steps=20,
        first=0,
        candidates=candidates,
        beta=beta,
        threshold=NoiseThreshold(lowest=lowest, highest=highest),
        guidance=GUIDANCE[model],
    )
    return reinforce("lpo", prompts, model=model, reward=reward, method=method, run=RUN, source=source, setup=setup)
