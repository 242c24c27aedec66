"""Latent reward models as their papers train them: the kinds by name, the settings of each, and their node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from actors.training.engines.engine import AdamW
from actors.training.options import TrainerOptions
from infra.dag.stage import Resources
from pipelines.algorithms.diffusion.flow import LogitNormalTimes, TimeSampler, UniformTimes
from pipelines.models.adapter import LoRA
from pipelines.models.rewards.drm import DRM
from pipelines.models.rewards.early import EarlyLayers
from pipelines.models.rewards.lrm import LRM
from pipelines.models.rewards.pixels import PixelReward
from pipelines.models.rewards.reward import RewardModel
from pipelines.models.rewards.slrm import SLRM
from pipelines.models.rewards.task_tokens import TaskTokenReward
from pipelines.recipes.parts.model import Trainee
from pipelines.recipes.parts.pairs import Data
from pipelines.recipes.parts.setup import Setup
from pipelines.stages.reward import Reward
from pipelines.training.previews import Previews
from pipelines.training.reward import PairNoise

RewardName = Literal["slrm", "task_tokens", "drm", "lrm", "early", "pixels"]
REWARDS: dict[RewardName, RewardModel] = {
    "slrm": SLRM(),
    "task_tokens": TaskTokenReward(),
    "drm": DRM(),
    "lrm": LRM(guidance=1.0),
    "early": EarlyLayers(),
    "pixels": PixelReward(),
}


EVERY_TIME = UniformTimes(low=0.0, high=1.0)


@dataclass(frozen=True)
class RewardRun:
    """A paper's settings of a training of a reward model."""

    epochs: float
    batch: int
    """Pairs per step."""
    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    warm_up: int = 0
    times: TimeSampler = EVERY_TIME
    noise: PairNoise = "shared"
    steps: int | None = None
    """In the place of epochs."""
    model: RewardModel | None = None
    """In the place of the kind's own settings."""


SLRM_RUN = RewardRun(epochs=5.0, batch=32)
"""SLRM (SLRM + TAPO, Table 5): 5 epochs of 580,000 pairs at 1e-5, 32 pairs per step, every time alike."""
SLRM_CLIPS = RewardRun(epochs=15.0, batch=16, learning_rate=1e-4, model=SLRM(adapter=LoRA(rank=128, alpha=256.0)))
"""SLRM on clips (Table 5): 15 epochs of 10,000 pairs at 1e-4, 16 pairs per step; whether of all weights is not said, and a
LoRA of TAPO's rank is Salon's reading, since 1e-4 is high for all of Wan's."""
RUNS: dict[RewardName, RewardRun] = {
    "slrm": SLRM_RUN,
    "task_tokens": SLRM_RUN,
    # DRM's public code: one epoch of 1.4 million pairs, 128 per step, SD3's own draw of times, noise of each picture's own.
    "drm": RewardRun(
        epochs=1.0,
        batch=128,
        weight_decay=1e-4,
        warm_up=500,
        times=LogitNormalTimes(shift="generator"),
        noise="independent",
    ),
    # LRM as SLRM's authors retrained it (no settings are given): its own noise, everything else as SLRM.
    "lrm": replace(SLRM_RUN, noise="independent"),
    "early": RewardRun(epochs=1.0, batch=144, learning_rate=5e-6),
    "pixels": SLRM_RUN,
}
"""Settings by kind. Where a paper gives none, those of SLRM."""


def reward_run(name: RewardName, *, clips: bool) -> RewardRun:
    """The settings of a kind on pictures or on clips."""
    return SLRM_CLIPS if clips and name == "slrm" else RUNS[name]


def kind_of(name: RewardName, *, clips: bool) -> RewardModel:
    """The network of a kind with its paper's settings, on pictures or on clips."""
    return reward_run(name, clips=clips).model or REWARDS[name]


def reward_stage(
    model: Trainee,
    data: Data,
    run: RewardRun,
    *,
    kind: RewardModel,
    setup: Setup,
    held_out: float = 0.02,
    previews: Previews | None = None,
) -> Reward:
    """import -> encode -> examples -> reward.

    kind: the network; held_out: share of the prompts that measures it; previews: whose texts are encoded with the pairs.
    """
    examples = data.nodes(model, previews or setup.previews(data.area, frames=data.frames, multiple=8), setup=setup)
    length: dict[str, Any] = {"steps": run.steps} if run.steps is not None else {"epochs": run.epochs}
    optimizer = AdamW(betas=(0.9, 0.999), weight_decay=run.weight_decay)
    # Frozen parts and parts without a gradient are kept whole: ZeRO 3 would divide what the hooks of a network read.
    low = setup.model_copy(update={"zero": "2" if setup.zero in (None, "3") else setup.zero})
    return Reward(
        examples=examples,
        policy=model.family,
        model=kind,
        times=run.times,
        pair_noise=run.noise,
        checkpointing=not isinstance(kind, PixelReward),  # a network on pixels has no denoiser to compute again
        held_out=held_out,
        trainer=TrainerOptions(
            **length,
            batch=run.batch,
            learning_rate=run.learning_rate,
            warm_up=run.warm_up,
            optimizer=optimizer,
            micro_batch=setup.micro_batch,
            engine=low.engine(optimizer),
            seed=setup.seed,
        ),
        resources=Resources(workers=setup.workers, gpus=setup.gpus),
    )
