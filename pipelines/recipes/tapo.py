"""Recipe `tapo`: TAPO with SLRM as its reward (SLRM + TAPO, Algorithm 1 and Table 5).

Two branches from one noise, eight stochastic steps, four candidates per branch and step, the pairwise loss at beta 1000
(video 500); LoRA of rank 64 (video 128), learning rate 1e-4, 8 prompts per update, 5 epochs (video 10) of SPO's 4,000
prompts, 20 sampling steps (video 40). The paper gives no alpha, no t_init and no guidance: alpha is twice the rank, the
first stochastic step is 1, and the guidance is the generator's own.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from infra.dag.stage import Stage
from pipelines.algorithms.diffusion.stochastic import FlowSDE
from pipelines.recipes.parts import online
from pipelines.recipes.parts.reinforced import GUIDANCE, OnlineModel, OnlineRun, OnlineSource, reinforce
from pipelines.recipes.parts.rewarded import RewardName
from pipelines.recipes.parts.setup import Setup

PROMPTS = 4000
RUNS = {
    "sd3.5-medium": OnlineRun(steps=PROMPTS // 8 * 5, prompts_per_round=8, learning_rate=1e-4, rank=64),
    "wan2.1-1.3b": OnlineRun(steps=PROMPTS // 8 * 10, prompts_per_round=8, learning_rate=1e-4, rank=128),
}
SAMPLING = {"sd3.5-medium": 20, "wan2.1-1.3b": 40}
BETAS = {"sd3.5-medium": 1000.0, "wan2.1-1.3b": 500.0}


def tapo(
    *,
    prompts: Annotated[str, Field(description="file or folder of prompts to learn from")],
    model: Annotated[OnlineModel, Field(description="generator to train")] = "sd3.5-medium",
    reward: Annotated[RewardName, Field(description="kind of reward model")] = "slrm",
    stochastic_steps: Annotated[int, Field(ge=1, description="n: stochastic steps of a rollout")] = 8,
    first_step: Annotated[int, Field(ge=0, description="t_init: the first of them, counted from the noise end")] = 1,
    candidates: Annotated[int, Field(ge=2, le=64, description="P: candidates per branch and step")] = 4,
    beta: Annotated[float | None, Field(gt=0, le=1e6, description="KL weight (default: 1000, Wan 500)")] = None,
    noise: Annotated[float, Field(gt=0, le=10, description="a: noise level of the stochastic steps")] = 0.7,
    source: OnlineSource = OnlineSource(),
    setup: Setup = Setup(workers=8, zero="2", micro_batch=4),
) -> Stage:
    """import -> encode -> examples -> reward, prompts -> encode_texts; both -> reinforce."""
    method = online.tapo(
        sampling_steps=SAMPLING[model],
        count=stochastic_steps,
        first=first_step,
        candidates=candidates,
        beta=beta or BETAS[model],
        guidance=GUIDANCE[model],
        step=FlowSDE(a=noise),
    )
    run = RUNS[model]
    return reinforce("tapo", prompts, model=model, reward=reward, method=method, run=run, source=source, setup=setup)
