"""What the recipes `align_image` and `align_video` take of their user; the fields are flags of the command."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from infra.config import Config, ConfigError
from infra.dag.stage import Resources
from pipelines.algorithms.preference.diffusion_dpo import DiffusionDPO
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.margin import Margin
from pipelines.algorithms.preference.methods import AnyMethod
from pipelines.algorithms.preference.polynomial import AutoAlpha, FixedAlpha
from pipelines.algorithms.preference.sft import SFT
from pipelines.recipes.parts.given import labels_of
from pipelines.recipes.parts.model import Trainee
from pipelines.recipes.parts.offline import Run


class Brought(Config):
    """Prompts, models and pairs: what the user brings, and how it is put together."""

    prompt_column: Annotated[str, Field(description="column of a table of prompts that holds the text")] = "prompt"
    task_column: Annotated[
        str, Field(description="column that holds the kind of prompt, by which results are summarised")
    ] = ""
    held_out: Annotated[
        float, Field(gt=0, lt=1, description="share of the prompts, chosen by hash, that evaluate and never teach")
    ] = 0.1
    policy: Annotated[str, Field(description="generator of the roster that is tuned (default: the first)")] = ""
    architecture: Annotated[
        str, Field(description="architecture of the policy, where its repository is not a published one")
    ] = ""
    evaluation_jury: Annotated[
        str, Field(description="list of jurors who judge the evaluation only, so that reward hacking is seen")
    ] = ""
    scorers: Annotated[str, Field(description="list of scorers that measure the evaluation")] = ""
    policy_samples: Annotated[int, Field(ge=1, le=64, description="pictures or clips per prompt by the policy")] = 4
    other_samples: Annotated[
        int, Field(ge=0, le=64, description="pictures or clips per prompt by each other generator")
    ] = 1
    other_pairs: Annotated[
        int | None, Field(ge=1, description="most pairs per prompt with other generators (default: all)")
    ] = None
    own_pairs_only: Annotated[
        bool, Field(description="learn only from pairs of the policy's own samples; the others rate the generators")
    ] = False
    quota: Annotated[
        tuple[str, ...], Field(description="NAME=N: most pairs of the whole set that a generator takes part in")
    ] = ()
    dimensions: Annotated[
        tuple[str, ...], Field(description="NAME or NAME=WEIGHT of the jury's dimensions that decide (default: overall)")
    ] = ()
    ranking: Annotated[
        int,
        Field(ge=0, le=8, description="pictures per question of jurors whose questionnaire is a ranking; 0 for pairs"),
    ] = 0
    first_frames: Annotated[
        str,
        Field(description="list with one generator: it makes the pictures that clips begin with"),
    ] = ""
    animate: Annotated[
        tuple[str, ...], Field(description="names of the generators of the roster whose clips begin with a picture")
    ] = ()
    render_workers: Annotated[int, Field(ge=1, le=4096, description="actors that render")] = 8
    render_gpus: Annotated[float, Field(ge=0, description="GPUs per rendering actor")] = 1.0
    render_on: Annotated[
        tuple[str, ...], Field(description="LABEL=VALUE of the nodes that render (Ray's node labels)")
    ] = ()
    judge_workers: Annotated[int, Field(ge=1, le=4096, description="actors that judge and score")] = 8
    judge_gpus: Annotated[float, Field(ge=0, description="GPUs per judging actor")] = 1.0
    judge_on: Annotated[tuple[str, ...], Field(description="LABEL=VALUE of the nodes that judge and score")] = ()
    evaluation_seed: Annotated[int, Field(ge=0, description="seed of the evaluation's pictures and resampling")] = 0

    def rendering(self) -> Resources:
        """Resources of stage `render`."""
        labels = labels_of(self.render_on, flag="--render-on")
        return Resources(workers=self.render_workers, gpus=self.render_gpus, label_selector=labels)

    def judging(self) -> Resources:
        """Resources of stages `judge` and `score`."""
        labels = labels_of(self.judge_on, flag="--judge-on")
        return Resources(workers=self.judge_workers, gpus=self.judge_gpus, label_selector=labels)


class Tuning(Config):
    """The loss and the training."""

    method: Annotated[
        Literal["dpo", "dpo_time", "sft"],
        Field(description="loss: dpo is Flow-DPO or Diffusion-DPO, as the policy predicts; dpo_time weighs by (1-t)^2"),
    ] = "dpo"
    beta: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="KL weight: larger stays closer to the reference")
    ] = 500.0
    alpha: Annotated[str, Field(pattern=r"^(auto|-?\d+(\.\d+)?)$", description="Poly-DPO's alpha, or auto")] = "0"
    margin: Annotated[
        Literal["none", "arena"], Field(description="margin of a pair: none, or by the arena's ratings of its generators")
    ] = "none"
    scale: Annotated[float, Field(ge=0, allow_inf_nan=False, description="coefficient c of the margin")] = 0.1
    adapter: Annotated[Literal["lora", "full"], Field(description="what is trained: a LoRA or all weights")] = "lora"
    rank: Annotated[int, Field(ge=1, le=4096, description="rank of the LoRA; its alpha is twice that")] = 64
    steps: Annotated[int | None, Field(ge=1, description="optimiser steps, instead of epochs")] = None
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False, description="passes over the pairs")] = 1.0
    batch: Annotated[int, Field(ge=1, description="pairs per step")] = 64
    learning_rate: Annotated[float, Field(gt=0, le=1, description="highest learning rate")] = 5e-6
    caption_dropout: Annotated[
        float, Field(ge=0, lt=1, description="share of the examples that are trained with the empty text")
    ] = 0.0
    side: Annotated[
        int | None, Field(ge=8, description="side in pixels of a square of the training area (default: as rendered)")
    ] = None

    def loss(self, trainee: Trainee) -> AnyMethod:
        """The preference loss for this policy; raises ConfigError for one that does not suit what it predicts."""
        if self.method == "sft":
            return SFT()
        margin = Margin() if self.margin == "none" else Margin(scale=self.scale, gap="arena")
        polynomial = AutoAlpha() if self.alpha == "auto" else FixedAlpha(alpha=float(self.alpha))
        if not trainee.diffusion:
            weighting = "(1-t)^2" if self.method == "dpo_time" else "constant"
            return FlowDPO(beta=self.beta, margin=margin, polynomial=polynomial, weighting=weighting)
        if self.method == "dpo_time":
            raise ConfigError(f"--method dpo_time: {trainee.family.name} predicts noise, not a velocity; choose dpo")
        return DiffusionDPO(beta=self.beta, margin=margin, polynomial=polynomial)

    def run(self) -> Run:
        """Steps, batch and rate."""
        epochs = self.epochs if self.steps is None else None
        given = {"batch": self.batch, "learning_rate": self.learning_rate, "caption_dropout": self.caption_dropout}
        return Run(steps=self.steps or 1, epochs=epochs, scaled=False, **given)
