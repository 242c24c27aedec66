"""Recipe `spo`: SPO on a rectified flow (Liang et al., 2025; on SD3.5-medium as a baseline of SLRM + TAPO).

The settings published for SDXL, with the stochastic step of flow matching in the place of DDIM's: two candidates from
step 4 of 20 on, pairs whose best leads by 0.4, a random candidate goes on, beta 10, ratios clipped by 0.1. SLRM + TAPO
does not say how it trained SPO on SD3.5: LoRA of rank 64, learning rate 1e-4 and 8 prompts per update are TAPO's, ten
epochs are SPO's. SPO's reward reads decoded predictions; `--reward pixels` is of that kind.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from infra.dag.stage import Stage
from pipelines.algorithms.online.keep import FixedThreshold
from pipelines.recipes.parts import online
from pipelines.recipes.parts.reinforced import GUIDANCE, OnlineModel, OnlineRun, OnlineSource, reinforce
from pipelines.recipes.parts.rewarded import RewardName
from pipelines.recipes.parts.setup import Setup

RUN = OnlineRun(steps=5000, prompts_per_round=8, learning_rate=1e-4, rank=64)


def spo(
    *,
    prompts: Annotated[str, Field(description="file or folder of prompts to learn from")],
    model: Annotated[OnlineModel, Field(description="generator to train")] = "sd3.5-medium",
    reward: Annotated[RewardName, Field(description="kind of reward model")] = "pixels",
    candidates: Annotated[int, Field(ge=2, le=64, description="candidates per state")] = 2,
    first_step: Annotated[int, Field(ge=0, description="first stochastic step, counted from the noise end")] = 4,
    threshold: Annotated[float, Field(ge=0, lt=1, description="least lead of the best over the worst candidate")] = 0.4,
    beta: Annotated[float, Field(gt=0, le=1e6, description="KL weight")] = 10.0,
    source: OnlineSource = OnlineSource(),
    setup: Setup = Setup(workers=8, zero="2", micro_batch=4),
) -> Stage:
    """import -> encode -> examples -> reward, prompts -> encode_texts; both -> reinforce."""
    method = online.candidate_pairs(
        sampling_steps=20,
        first=first_step,
        candidates=candidates,
        beta=beta,
        threshold=FixedThreshold(value=threshold),
        guidance=GUIDANCE[model],
    )
    return reinforce("spo", prompts, model=model, reward=reward, method=method, run=RUN, source=source, setup=setup)
