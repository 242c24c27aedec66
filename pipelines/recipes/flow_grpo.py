"""Recipe `flow_grpo`: Flow-GRPO or DanceGRPO, rewarded at the end of a rollout.

Flow-GRPO (Liu et al., 2025) as DRM uses it: ten sampling steps of which the last is not learnt from, noise level 0.7, 24
samples of 48 prompts per round, two updates per round, advantages by the round's standard deviation clipped to 5, clip
range 1e-4, KL 0.01, LoRA of rank 32 and alpha 64, learning rate 1e-4, an average of the weights of decay 0.9. DanceGRPO
(Xue et al., 2025): constant noise 0.3 (video 0.25), one start noise per prompt, 16 steps of which a random 0.6 are learnt
from, groups of 12, their own standard deviation with n - 1, all weights at 1e-5, no KL. Neither says how many updates:
1,000 here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from infra.dag.stage import Stage
from pipelines.algorithms.diffusion.stochastic import Dance, FlowSDE
from pipelines.algorithms.online.advantage import GroupAdvantage
from pipelines.algorithms.online.grpo import GRPO
from pipelines.recipes.parts import online
from pipelines.recipes.parts.reinforced import GUIDANCE, OnlineModel, OnlineRun, OnlineSource, reinforce
from pipelines.recipes.parts.rewarded import RewardName
from pipelines.recipes.parts.setup import Setup
from pipelines.training.online_methods import GRPOMethod

RUNS = {
    "flow": OnlineRun(
        steps=1000, prompts_per_round=48, steps_per_round=2, learning_rate=1e-4, rank=32, alpha=64.0, ema=0.9
    ),
    "dance": OnlineRun(steps=1000, prompts_per_round=32, steps_per_round=4, learning_rate=1e-5, full=True),
}


def flow_grpo(
    *,
    prompts: Annotated[str, Field(description="file or folder of prompts to learn from")],
    form: Annotated[Literal["flow", "dance"], Field(description="Flow-GRPO or DanceGRPO")] = "flow",
    model: Annotated[OnlineModel, Field(description="generator to train")] = "sd3.5-medium",
    reward: Annotated[RewardName, Field(description="kind of reward model")] = "drm",
    samples: Annotated[int | None, Field(ge=2, le=256, description="G: samples per prompt (default: 24, dance 12)")] = None,
    clip: Annotated[float, Field(gt=0, lt=1, description="clip range of the ratio of mean log-probabilities")] = 1e-4,
    kl: Annotated[
        float | None, Field(ge=0, le=1e6, description="weight of the KL to the reference (default: 0.01, dance 0)")
    ] = None,
    source: OnlineSource = OnlineSource(),
    setup: Setup = Setup(workers=16, zero="2", micro_batch=4),
) -> Stage:
    """import -> encode -> examples -> reward, prompts -> encode_texts; both -> reinforce."""
    method = _dance(model, samples, clip, kl) if form == "dance" else _flow(model, samples, clip, kl)
    return reinforce(form, prompts, model=model, reward=reward, method=method, run=RUNS[form], source=source, setup=setup)


def _flow(model: OnlineModel, samples: int | None, clip: float, kl: float | None) -> GRPOMethod:
    return online.flow_grpo(
        sampling_steps=10,
        first=0,
        samples=samples or 24,
        loss=GRPO(clip=clip, kl_weight=0.01 if kl is None else kl),
        guidance=GUIDANCE[model],
        advantage=GroupAdvantage(over="round"),
        step=FlowSDE(),
    )


def _dance(model: OnlineModel, samples: int | None, clip: float, kl: float | None) -> GRPOMethod:
    return online.flow_grpo(
        sampling_steps=16,
        first=0,
        samples=samples or 12,
        loss=GRPO(clip=clip, kl_weight=kl or 0.0),
        guidance=GUIDANCE[model],
        advantage=GroupAdvantage(ddof=1),
        step=Dance(eta=0.3 if model == "sd3.5-medium" else 0.25),
        shared_noise=True,
        learn_share=0.6,
    )
