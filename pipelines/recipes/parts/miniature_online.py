"""Online training of the miniature's policy: the reward model of the loop rewards, the pointwise juror only watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from actors.training.engines.engine import EngineOptions
from actors.training.options import TrainerOptions
from infra.dag.stage import Resources
from pipelines.algorithms.online.advantage import GroupAdvantage
from pipelines.algorithms.online.grpo import GRPO
from pipelines.algorithms.online.keep import FixedThreshold, NoiseThreshold
from pipelines.algorithms.online.stop import StopRule
from pipelines.miniature import jurors
from pipelines.miniature.family import MiniatureFamily
from pipelines.miniature.world.draw import SIZE
from pipelines.models.adapter import Full, LoRA
from pipelines.models.rewards.trained import TrainedLatentReward
from pipelines.models.weights import Made, Weights
from pipelines.recipes.parts import online
from pipelines.stages.encode import Encoders
from pipelines.stages.encode_texts import EncodeTexts
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.reinforce import Reinforce
from pipelines.stages.reward import Reward
from pipelines.training.online_methods import AnyOnlineMethod
from pipelines.training.rewarding import JurorTerm, LatentTerm

SAMPLING_STEPS = 8  # of the policy's own sampler
RATES = {"full": 5e-5, "lora": 2.5e-4}
"""Learning rates by what is trained: a quarter of the offline ones."""
WATCHER = "idefics3-pointwise"
HELD_OUT = 4
"""Training captions that are not learnt from: the fewest that --prompts allows are six."""


def method(name: online.OnlineName) -> AnyOnlineMethod:
    """The algorithm at the miniature's eight steps; noise of the first step is left out, since it never quite goes away."""
    steps = {"sampling_steps": SAMPLING_STEPS, "guidance": 1.0}
    if name == "tapo":
        return online.tapo(**steps, count=3, first=1, candidates=4, beta=1000.0)
    if name == "spo":
        return online.candidate_pairs(**steps, first=1, candidates=4, beta=10.0, threshold=FixedThreshold())
    if name == "lpo":
        return online.candidate_pairs(**steps, first=1, candidates=4, beta=500.0, threshold=NoiseThreshold())
    if name == "step_grpo":
        return online.step_grpo(**steps, first=1, starts=1, candidates=6, loss=GRPO())
    if name == "flow_grpo":
        return online.flow_grpo(**steps, first=1, samples=8, loss=GRPO(), advantage=GroupAdvantage())
    # The sampler of eight steps never goes below t = 0.3.
    return online.online_dpo(**steps, samples=8, beta=500.0, low=0.25)


@dataclass(frozen=True)
class Learning:
    """How the policy is trained, online or on pairs: the flags of the command."""

    adapter: Literal["lora", "full"]
    zero: Literal["0", "1", "2", "3"]
    beta: float
    steps: int
    batch: int
    """Pairs per step; online, prompts."""
    rate: float | None
    seed: int
    resources: Resources

    @property
    def trained(self) -> LoRA | Full:
        """What is trained."""
        return Full() if self.adapter == "full" else LoRA()

    @property
    def engine(self) -> EngineOptions:
        """DeepSpeed, or plain torch at ZeRO 0."""
        return EngineOptions(kind="torch") if self.zero == "0" else EngineOptions(zero=int(self.zero))  # type: ignore[arg-type]


def reinforced(
    captions: WritePrompts, reward: Reward, weights: Weights, *, name: online.OnlineName, learning: Learning
) -> Reinforce:
    """The policy, trained by an online algorithm on `batch` captions per update, rewarded by the reward model."""
    policy, chosen = MiniatureFamily(weights=weights), method(name)
    trained = TrainedLatentReward(weights=Made(stage=reward), model=reward.model, backbone=reward.policy)
    watcher = next(one for one in jurors.shipped() if one.name == WATCHER)
    return Reinforce(
        texts=EncodeTexts(prompts=captions, encoders=Encoders(family=policy)),
        policy=policy,
        adapter=learning.trained,
        rewards=(LatentTerm(reward=trained),),
        method=chosen,
        height=SIZE,
        width=SIZE,
        prompts_per_round=learning.batch,
        held_out_prompts=HELD_OUT,
        measures=(JurorTerm(juror=watcher),),
        stop=StopRule(),
        trainer=TrainerOptions(
            steps=learning.steps,
            batch=learning.batch * chosen.per_prompt(),
            learning_rate=learning.rate or RATES[learning.adapter],
            warm_up=min(10, learning.steps),
            seed=learning.seed,
            engine=learning.engine,
        ),
        rollout_prompts=64,
        resources=learning.resources,
    )
