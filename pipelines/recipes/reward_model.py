"""Recipe `reward_model`: a latent reward model on pairs of Pick-a-Pic, HPDv3 or one's own, with its paper's settings.

SLRM (SLRM + TAPO, Table 5): squares of 512 px, 5 epochs of 580,000 pairs at 1e-5, 32 per step; clips: 49 frames of 480 x
832 at 16 fps, 15 epochs of 10,000 pairs at 1e-4, 16 per step. DRM (public code): one epoch of 1.4 million pairs of HPDv3 at
1e-5, 128 per step, 500 steps of warm-up, weight decay 1e-4, SD3's own draw of times, noise of each picture's own. Of kinds
whose papers give no settings for these backbones (LRM, pixels) the rest is SLRM's; early layers have Flow-NRG's rate and
batch.

Accuracy is measured on held-out prompts at t = 0, .001, .101 … .901, with intervals over prompts; the scores of every pair
are rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from infra.config import Config, ConfigError
from infra.dag.stage import Stage
from pipelines.algorithms.diffusion.flow import UniformTimes
from pipelines.algorithms.reward.enhanced import Enhancement
from pipelines.exchange.formats import FormatName
from pipelines.models.rewards.reward import RewardModel
from pipelines.models.rewards.slrm import SLRM
from pipelines.recipes.parts.model import published
from pipelines.recipes.parts.pairs import Data
from pipelines.recipes.parts.rewarded import RewardName, RewardRun, kind_of, reward_run, reward_stage
from pipelines.recipes.parts.setup import Setup
from pipelines.training.reward import PairNoise

Backbone = Literal["sd15", "sdxl", "sd3.5-medium", "flux.1-dev", "qwen-image", "wan2.1-1.3b", "wan2.1-14b"]
PAIRS, PAIRS_OF_CLIPS, PAIRS_OF_DRM = 580_000, 10_000, 1_400_000
SIDE, CLIP, FRAMES = 512, 480 * 832, 49
CLEAN = UniformTimes(low=0.0, high=0.0)


class Ablated(Config):
    """Parts of SLRM that the paper takes away (Table 3)."""

    enhancement: Annotated[
        Literal["relative", "absolute", "none"],
        Field(description="scale of the denoising error that lowers a score; absolute is the paper's letter, none: off"),
    ] = "relative"
    readout: Annotated[
        Literal["task_tokens", "similarity"], Field(description="what is scored; similarity is without task tokens")
    ] = "task_tokens"
    projections: Annotated[
        Literal["own", "shared"], Field(description="whether task tokens have projections of their own")
    ] = "own"
    backbone: Annotated[
        Literal["generator", "random"], Field(description="weights that training begins with; random takes all of them")
    ] = "generator"

    def of(self, model: RewardModel) -> RewardModel:
        """SLRM with these; raises ConfigError where another kind of reward model is asked for less."""
        if isinstance(model, SLRM):
            enhancement = None if self.enhancement == "none" else Enhancement(scale=self.enhancement)
            given = {"readout": self.readout, "projections": self.projections, "backbone": self.backbone}
            return SLRM.model_validate(model.model_dump() | given | {"enhancement": enhancement})
        for name, default in Ablated().model_dump().items():
            if getattr(self, name) != default:
                raise ConfigError(f"--{name} {getattr(self, name)} is an option of --reward slrm; leave it out")
        return model


class RewardSource(Config):
    """Which backbone learns from which pairs, and how long."""

    weights: Annotated[str, Field(description="folder or hub id of the generator; the published one by default")] = ""
    revision: Annotated[str, Field(description="of the hub id")] = "main"
    pairs: Annotated[
        str, Field(description="folder of pairs, or the file of a run (STORE/runs/NAME.json); without it, only plan works")
    ] = ""
    pairs_format: Annotated[FormatName, Field(description="how the folder keeps them; salon import reads the same")] = (
        "salon"
    )
    steps: Annotated[int | None, Field(ge=1, description="steps, instead of the paper's epochs")] = None
    epochs: Annotated[float | None, Field(gt=0, le=1000, description="epochs, instead of the paper's")] = None
    batch: Annotated[int | None, Field(ge=1, description="pairs per step, instead of the paper's")] = None
    learning_rate: Annotated[
        float | None, Field(gt=0, le=1, description="highest learning rate, instead of the paper's")
    ] = None
    noise: Annotated[
        PairNoise | None, Field(description="whether both of a pair have one noise (default: as the kind's paper)")
    ] = None
    clean: Annotated[bool, Field(description="train on clean latents only, the ablation without noise")] = False
    held_out: Annotated[
        float, Field(gt=0, lt=1, description="share of the prompts, chosen by hash, that measure and do not teach")
    ] = 0.02
    side: Annotated[int | None, Field(ge=8, description="side in pixels of square samples, instead of the paper's")] = None
    max_error_share: Annotated[
        float, Field(ge=0, le=1, description="share of rows that may be quarantined before a stage fails")
    ] = 0.05

    def run(self, run: RewardRun) -> RewardRun:
        """A paper's settings with these in their place."""
        if self.steps is not None and self.epochs is not None:
            raise ConfigError(f"--steps {self.steps} and --epochs {self.epochs:g}: give one of both")
        return replace(
            run,
            steps=self.steps,
            epochs=self.epochs or run.epochs,
            batch=self.batch or run.batch,
            learning_rate=self.learning_rate or run.learning_rate,
            noise=self.noise or run.noise,
            times=CLEAN if self.clean else run.times,
        )


class RewardSetup(Config):
    """Resources of training and encoding, and precision."""

    workers: Annotated[int, Field(ge=1, le=4096, description="training workers")] = 8
    gpus: Annotated[float, Field(ge=0, description="GPUs per training worker")] = 1.0
    encode_workers: Annotated[int, Field(ge=1, le=4096, description="actors that encode pictures and texts")] = 8
    encode_gpus: Annotated[float, Field(ge=0, description="GPUs per encoding actor")] = 1.0
    zero: Annotated[Literal["0", "1", "2"], Field(description="DeepSpeed ZeRO stage; 0: plain torch")] = "2"
    micro_batch: Annotated[int, Field(ge=1, description="pairs per backward pass and GPU")] = 4
    precision: Annotated[
        Literal["bf16", "fp32"], Field(description="precision of weights and activations; losses are always fp32")
    ] = "bf16"
    seed: Annotated[int, Field(ge=0, description="seed of the order of pairs, of noise and of times")] = 0

    def whole(self) -> Setup:
        """As the recipes' shared parts take it."""
        return Setup(**self.model_dump())


def reward_model(
    *,
    reward: Annotated[RewardName, Field(description="kind of reward model")] = "slrm",
    model: Annotated[Backbone, Field(description="generator whose denoiser is the backbone")] = "sd3.5-medium",
    ablated: Ablated = Ablated(),
    source: RewardSource = RewardSource(),
    setup: RewardSetup = RewardSetup(),
) -> Stage:
    """import -> encode -> examples -> reward."""
    clips = model.startswith("wan")
    area = source.side**2 if source.side else CLIP if clips else SIDE**2
    expected = PAIRS_OF_CLIPS if clips else PAIRS_OF_DRM if reward == "drm" else PAIRS
    data = Data(
        pairs=source.pairs,
        format=source.pairs_format,
        expected=expected,
        area=area,
        max_error_share=source.max_error_share,
        clips=clips,
        frames=(FRAMES,) if clips else (1,),
        square=not clips,
    )
    trainee = published(model, adapter="full", weights=source.weights, revision=source.revision)
    run = source.run(reward_run(reward, clips=clips))
    kind = ablated.of(kind_of(reward, clips=clips))
    return reward_stage(trainee, data, run, kind=kind, setup=setup.whole(), held_out=source.held_out)
