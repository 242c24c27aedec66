"""Evaluation arms whose sampling a trained reward steers: the same generator with a search or a guide."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from infra.config import Config
from pipelines.models.generators.steered import BestOfN, FlowNRG, Steering, StepwiseSampling
from pipelines.models.rewards.trained import TrainedLatentReward
from pipelines.models.weights import Made
from pipelines.stages.reward import Reward

Steer = Literal["none", "best_of_n", "stepwise", "flow_nrg"]
"""How a reward steers the sampling of an arm."""


class SteeredArms(Config):
    """Flags of further arms of an evaluation, whose sampling the reward model steers."""

    steer: Annotated[Steer, Field(description="how the reward model steers further arms of the evaluation")] = "none"
    candidates: Annotated[
        int, Field(ge=1, le=64, description="N of best of N, or candidates per step of step-wise sampling")
    ] = 4
    reward_scale: Annotated[
        float, Field(ge=0, le=1e6, description="scale of the guidance by the reward's gradient (flow_nrg)")
    ] = 100.0

    def steering(self) -> Steering | None:
        """How the reward steers; None where it does not."""
        if self.steer == "best_of_n":
            return BestOfN(count=self.candidates)
        if self.steer == "stepwise":
            return StepwiseSampling(candidates=self.candidates)
        return FlowNRG(scale=self.reward_scale) if self.steer == "flow_nrg" else None


def trained_reward(stage: Reward) -> TrainedLatentReward:
    """What stage `reward` trains, as a reward of noised latents; its dimensions count alike."""
    return TrainedLatentReward(weights=Made(stage=stage), model=stage.model, backbone=stage.policy)
