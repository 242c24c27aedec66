"""Recipe `step_grpo`: Step-wise GRPO with a diffusion reward model (DRM).

Every state of a rollout has six candidates that are scored at their own noise level; their advantages within the six are
what is learnt from. Four start noises of 48 prompts per round (24 candidates per prompt, as GRPO has samples), two
updates per round, ten sampling steps of which the last is not learnt from, LoRA of rank 32 and alpha 64, learning rate
1e-4, clip range 1e-4, KL 0.01. Which candidate goes on is not published: a random one. Neither is the number of updates:
1,000.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from infra.dag.stage import Stage
from pipelines.algorithms.online.grpo import GRPO
from pipelines.recipes.parts import online
from pipelines.recipes.parts.reinforced import GUIDANCE, OnlineModel, OnlineRun, OnlineSource, reinforce
from pipelines.recipes.parts.rewarded import RewardName
from pipelines.recipes.parts.setup import Setup

RUN = OnlineRun(steps=1000, prompts_per_round=48, steps_per_round=2, learning_rate=1e-4, rank=32, alpha=64.0, ema=0.9)


def step_grpo(
    *,
    prompts: Annotated[str, Field(description="file or folder of prompts to learn from")],
    model: Annotated[OnlineModel, Field(description="generator to train")] = "sd3.5-medium",
    reward: Annotated[RewardName, Field(description="kind of reward model")] = "drm",
    candidates: Annotated[int, Field(ge=2, le=64, description="k: candidates per state")] = 6,
    starts: Annotated[int, Field(ge=1, le=64, description="M: start noises per prompt")] = 4,
    sampling_steps: Annotated[int, Field(ge=2, le=1000, description="steps of the sampler in rollouts")] = 10,
    clip: Annotated[float, Field(gt=0, lt=1, description="clip range of the ratio of mean log-probabilities")] = 1e-4,
    kl: Annotated[float, Field(ge=0, le=1e6, description="weight of the KL to the reference")] = 0.01,
    source: OnlineSource = OnlineSource(),
    setup: Setup = Setup(workers=16, zero="2", micro_batch=4),
) -> Stage:
    """import -> encode -> examples -> reward, prompts -> encode_texts; both -> reinforce."""
    method = online.step_grpo(
        sampling_steps=sampling_steps,
        first=0,
        starts=starts,
        candidates=candidates,
        loss=GRPO(clip=clip, kl_weight=kl),
        guidance=GUIDANCE[model],
    )
    return reinforce("step_grpo", prompts, model=model, reward=reward, method=method, run=RUN, source=source, setup=setup)
