"""The nodes of an online training of a real generator: a reward model on pairs, prompts, and the training that it judges.

`OnlineSource` is an argument of the recipes; its fields are flags of the command.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from actors.training.engines.engine import AdamW
from actors.training.options import TrainerOptions
from infra.config import Config, ConfigError
from infra.dag.stage import Resources
from infra.store.files import Folder
from pipelines.exchange.formats import FormatName
from pipelines.models.prompts import Texts
from pipelines.models.rewards.trained import TrainedLatentReward
from pipelines.models.weights import Made, Weights
from pipelines.recipes.parts.model import Trainee, published
from pipelines.recipes.parts.pairs import Data
from pipelines.recipes.parts.rewarded import RewardName, kind_of, reward_run, reward_stage
from pipelines.recipes.parts.setup import Setup
from pipelines.stages.encode import Encoders
from pipelines.stages.encode_texts import EncodeTexts
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.reinforce import Reinforce
from pipelines.stages.reward import Reward
from pipelines.training.online_methods import AnyOnlineMethod
from pipelines.training.rewarding import LatentTerm

OnlineModel = Literal["sd3.5-medium", "wan2.1-1.3b"]
"""Generators that the papers train online."""
PAIRS = {"sd3.5-medium": 580_000, "wan2.1-1.3b": 10_000}
"""Pairs that SLRM + TAPO trains its reward models on."""
FRAMES = {"sd3.5-medium": 1, "wan2.1-1.3b": 49}
SIZES = {"sd3.5-medium": (512, 512), "wan2.1-1.3b": (480, 832)}
"""Height and width of a sample in pixels."""
GUIDANCE = {"sd3.5-medium": 4.5, "wan2.1-1.3b": 5.0}
"""The generators' own scales; none of the papers says that it trains with another."""


class OnlineSource(Config):
    """Which generator learns from which prompts, rewarded by what: what an online recipe takes of its user."""

    weights: Annotated[str, Field(description="folder or hub id of the generator; the published one by default")] = ""
    revision: Annotated[str, Field(description="of the hub id")] = "main"
    prompt_column: Annotated[str, Field(description="column of the texts where the prompts are a table")] = "prompt"
    reward_weights: Annotated[
        str, Field(description="folder of a trained reward model; by default it is trained on --pairs first")
    ] = ""
    pairs: Annotated[str, Field(description="folder of pairs that the reward model learns from")] = ""
    pairs_format: Annotated[FormatName, Field(description="how they are kept; salon import reads the same")] = "salon"
    reward_steps: Annotated[int | None, Field(ge=1, description="steps of the reward model, instead of the paper's")] = None
    reward_batch: Annotated[
        int | None, Field(ge=1, description="pairs per step of the reward model, instead of the paper's")
    ] = None
    steps: Annotated[int | None, Field(ge=1, description="online updates, instead of the paper's")] = None
    prompts_per_round: Annotated[
        int | None, Field(ge=1, description="prompts that are rolled out at a time, instead of the paper's")
    ] = None
    learning_rate: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="highest learning rate of the online training")
    ] = None
    rank: Annotated[int | None, Field(ge=1, description="rank of the LoRA, instead of the paper's")] = None
    side: Annotated[int | None, Field(ge=8, description="side in pixels of square samples, instead of the paper's")] = None
    rollout_prompts: Annotated[int, Field(ge=1, description="prompts that a worker rolls out at once")] = 4
    max_error_share: Annotated[
        float, Field(ge=0, le=1, description="share of rows that may be quarantined before a stage fails")
    ] = 0.05


CHECKPOINT_EVERY = 50
"""Updates between two checkpoints, rounded up to whole rounds."""


@dataclass(frozen=True)
class OnlineRun:
    """A paper's settings of an online training."""

    steps: int
    prompts_per_round: int
    learning_rate: float
    steps_per_round: int = 1
    rank: int = 64
    alpha: float | None = None
    """Of the LoRA; None: twice the rank."""
    full: bool = False
    """Whether all weights are trained."""
    ema: float | None = None


def reinforce(
    name: str,
    prompts: str,
    *,
    model: OnlineModel,
    reward: RewardName,
    method: AnyOnlineMethod,
    run: OnlineRun,
    source: OnlineSource,
    setup: Setup,
) -> Reinforce:
    """import -> encode -> examples -> reward, prompts -> encode_texts; both -> reinforce."""
    if source.rank is not None and run.full:
        raise ConfigError(f"--rank {source.rank}: all weights are trained; leave it out")
    if setup.draws:
        raise ConfigError("--draws: samples of online training are new in every round, and nothing of them can be cached")
    rank = source.rank or run.rank
    kind = "full" if run.full else "lora"
    trainee = published(model, adapter=kind, rank=rank, weights=source.weights, revision=source.revision)
    adapter = trainee.trained()
    if adapter.kind == "lora" and run.alpha is not None:
        adapter = adapter.model_copy(update={"alpha": run.alpha * rank / run.rank})
    weights = (
        Folder(path=source.reward_weights)
        if source.reward_weights
        else Made(stage=_reward(trainee, model, reward, source, setup))
    )
    prompts_per_round = source.prompts_per_round or run.prompts_per_round
    height, width = (source.side, source.side) if source.side else SIZES[model]
    previews = setup.previews(height * width, frames=(FRAMES[model],), multiple=trainee.family.size_multiple)
    texts = Texts(path=prompts, column=source.prompt_column, evaluation_share=0.0)
    return Reinforce(
        label=name,
        texts=EncodeTexts(
            prompts=WritePrompts(source=texts, duplicates="merge"),
            encoders=Encoders(family=trainee.family),
            texts=previews.texts,
            dtype=setup.dtype,
            resources=Resources(workers=setup.encode_workers, gpus=setup.encode_gpus),
        ),
        policy=trainee.family,
        adapter=adapter,
        rewards=(LatentTerm(reward=_trained(weights, trainee, model, reward)),),
        method=method,
        frames=FRAMES[model],
        height=height,
        width=width,
        prompts_per_round=prompts_per_round,
        steps_per_round=run.steps_per_round,
        trainer=_trainer(run, source, setup, batch=prompts_per_round * method.per_prompt() // run.steps_per_round),
        base_precision=setup.base_precision,
        rollout_prompts=source.rollout_prompts,
        checkpointing=True,
        previews=previews,
        trackers=setup.trackers(),
        comfyui=setup.comfyui,
        resources=Resources(workers=setup.workers, gpus=setup.gpus),
    )


def _trainer(run: OnlineRun, source: OnlineSource, setup: Setup, *, batch: int) -> TrainerOptions:
    """The paper's settings with the user's steps and rate; `batch`: states per update."""
    return TrainerOptions(
        steps=source.steps or run.steps,
        batch=batch,
        learning_rate=source.learning_rate or run.learning_rate,
        warm_up=0,
        optimizer=AdamW(betas=(0.9, 0.999), weight_decay=0.01),
        engine=setup.engine(AdamW()),
        ema=setup.ema or run.ema,
        seed=setup.seed,
        micro_batch=setup.micro_batch,
        preview_every=setup.preview_every,
        checkpoint_every=-(-CHECKPOINT_EVERY // run.steps_per_round) * run.steps_per_round,
    )


def _trained(weights: Weights, trainee: Trainee, model: OnlineModel, reward: RewardName) -> TrainedLatentReward:
    return TrainedLatentReward(weights=weights, model=kind_of(reward, clips=FRAMES[model] > 1), backbone=trainee.family)


def _reward(trainee: Trainee, model: OnlineModel, reward: RewardName, source: OnlineSource, setup: Setup) -> Reward:
    """The reward model on the pairs, as its paper trains it."""
    height, width = (source.side, source.side) if source.side else SIZES[model]
    clips = FRAMES[model] > 1
    data = Data(
        pairs=source.pairs,
        format=source.pairs_format,
        expected=PAIRS[model],
        area=height * width,
        max_error_share=source.max_error_share,
        clips=clips,
        frames=(FRAMES[model],),
        square=not clips,
    )
    run = reward_run(reward, clips=clips)
    run = replace(run, steps=source.reward_steps, batch=source.reward_batch or run.batch)
    return reward_stage(trainee, data, run, kind=kind_of(reward, clips=clips), setup=setup)
