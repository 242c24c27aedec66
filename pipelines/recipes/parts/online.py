"""The online algorithms with the settings that recipes give them."""

from __future__ import annotations

from typing import Literal

from pipelines.algorithms.diffusion.flow import UniformTimes
from pipelines.algorithms.diffusion.stochastic import AnyStep, FlowSDE
from pipelines.algorithms.online.advantage import GroupAdvantage
from pipelines.algorithms.online.grpo import GRPO
from pipelines.algorithms.online.keep import AnyThreshold
from pipelines.algorithms.online.spo import SPO
from pipelines.algorithms.online.windows import EveryStep, SpreadSteps
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.models.rollout import RolloutPlan
from pipelines.training.online_methods import (
    AnyOnlineMethod,
    GRPOMethod,
    OnlineDPOMethod,
    PairMethod,
    StepGRPOMethod,
    TAPOMethod,
)

OnlineName = Literal["tapo", "step_grpo", "flow_grpo", "spo", "lpo", "dpo"]
"""Online algorithms by name."""


def tapo(
    *,
    sampling_steps: int,
    count: int,
    first: int,
    candidates: int,
    beta: float,
    guidance: float,
    step: AnyStep | None = None,
    clip: float | None = None,
) -> TAPOMethod:
    """TAPO with `count` stochastic steps from `first` on and so many candidates per branch."""
    plan = RolloutPlan(
        branches=2,
        shared_noise=True,
        candidates=candidates,
        window=SpreadSteps(count=count, first=first),
        step=step or FlowSDE(),
        scored="steps",
        keep=("best", "worst"),
    )
    return TAPOMethod(plan=plan, sampling_steps=sampling_steps, guidance=guidance, loss=SPO(beta=beta, clip=clip))


def candidate_pairs(
    *,
    sampling_steps: int,
    first: int,
    candidates: int,
    beta: float,
    threshold: AnyThreshold,
    guidance: float,
    step: AnyStep | None = None,
) -> PairMethod:
    """SPO and LPO, from the step `first` on."""
    plan = RolloutPlan(
        candidates=candidates,
        window=EveryStep(first=first),
        step=step or FlowSDE(),
        scored="steps",
        keep=("random",),
    )
    given = {"plan": plan, "sampling_steps": sampling_steps, "guidance": guidance}
    return PairMethod(**given, loss=SPO(beta=beta), threshold=threshold)


def step_grpo(
    *, sampling_steps: int, first: int, starts: int, candidates: int, loss: GRPO, guidance: float
) -> StepGRPOMethod:
    """Step-wise GRPO from so many start noises per prompt."""
    plan = RolloutPlan(
        branches=starts, candidates=candidates, window=EveryStep(first=first), scored="steps", keep=("random",)
    )
    return StepGRPOMethod(plan=plan, sampling_steps=sampling_steps, guidance=guidance, loss=loss)


def flow_grpo(
    *,
    sampling_steps: int,
    first: int,
    samples: int,
    loss: GRPO,
    guidance: float,
    advantage: GroupAdvantage,
    step: AnyStep | None = None,
    shared_noise: bool = False,
    learn_share: float = 1.0,
) -> GRPOMethod:
    """Flow-GRPO and DanceGRPO on groups of `samples` of one prompt."""
    plan = RolloutPlan(
        branches=samples,
        shared_noise=shared_noise,
        window=EveryStep(first=first),
        step=step or FlowSDE(),
        scored="end",
        learn_share=learn_share,
    )
    given = {"plan": plan, "sampling_steps": sampling_steps, "guidance": guidance}
    return GRPOMethod(**given, loss=loss, advantage=advantage)


def online_dpo(*, sampling_steps: int, samples: int, beta: float, low: float, guidance: float) -> AnyOnlineMethod:
    """DPO on the best and the worst of `samples`, at times from `low` on."""
    plan = RolloutPlan(branches=samples, scored="end")
    given = {"plan": plan, "sampling_steps": sampling_steps, "guidance": guidance}
    return OnlineDPOMethod(**given, loss=FlowDPO(beta=beta), times=UniformTimes(low=low))
