"""The whole loop on generators and jurors of the user's choice: what `align_image` and `align_video` share.

prompts -> render -> pair -> judge -> label -> arena -> encode -> examples -> (reference errors) -> tune -> evaluate ->
report -> gate. `Brought` holds the arguments that the two recipes have in common; its fields are flags of the command.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from pipelines.models.generators.diffusers import Diffusers
from pipelines.models.generators.generator import Generator, Medium
from pipelines.models.jurors.juror import Juror
from pipelines.models.prompts import Texts
from pipelines.models.sizes import ARCHITECTURES
from pipelines.models.weights import Made
from pipelines.recipes.parts import kinds
from pipelines.recipes.parts.checks import require_draws, require_lengths
from pipelines.recipes.parts.loop import Animated, evaluated, labelled_pairs
from pipelines.recipes.parts.model import Trainee, family_of
from pipelines.recipes.parts.offline import Run, tuned
from pipelines.recipes.parts.setup import Setup
from pipelines.stages.evaluate import Evaluate
from pipelines.stages.examples import Examples
from pipelines.stages.gate import ApplyGate
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render
from pipelines.stages.report import Report
from pipelines.stages.tune import Tune
from pipelines.training.buckets import Buckets

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


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
    other_samples: Annotated[int, Field(ge=0, le=64, description="the same by each other generator")] = 1
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
    first_frames: Annotated[
        str,
        Field(description="list with the generator of the pictures that clips begin with"),
    ] = ""
    animate: Annotated[tuple[str, ...], Field(description="generators of the roster that begin so")] = ()
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


def labels_of(given: Sequence[str], *, flag: str) -> dict[str, str]:
    """Node labels of LABEL=VALUE; raises ConfigError naming the flag."""
    pairs = [item.partition("=") for item in given]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise ConfigError(f"{flag} {name}{equals}{value}: give LABEL=VALUE")
    return {name: value for name, _, value in pairs}


def quota_of(given: Sequence[str], roster: Sequence[Generator]) -> dict[str, int]:
    """{NAME: N} of NAME=N; raises ConfigError for what is no number, or for a generator that the roster lacks."""
    found: dict[str, int] = {}
    names = [one.name for one in roster]
    for item in given:
        name, _, number = item.rpartition("=")
        if not number.isdecimal() or name not in names:
            raise ConfigError(f"--quota {item}: give NAME=N with a generator of the roster ({', '.join(names)})")
        found[name] = int(number)
    return found


def weights_of(dimensions: Sequence[str], jury: Sequence[Juror]) -> dict[str, float]:
    """{NAME: WEIGHT} of "NAME=WEIGHT" or "NAME"; raises ConfigError for no weight, or a dimension that no juror judges."""
    found: dict[str, float] = {}
    known = {name for juror in jury for name in juror.dimensions}
    for given in dimensions:
        name, _, weight = given.partition("=")
        try:
            found[name] = float(weight or 1)
        except ValueError as error:
            raise ConfigError(f"--dimensions {given}: give NAME or NAME=WEIGHT") from error
        if name not in known:
            raise ConfigError(f"--dimensions {name}: no juror judges it; the jury has {', '.join(sorted(known))}")
    return found


@dataclass(frozen=True)
class ChosenModels:
    """The models of a run."""

    roster: tuple[Generator, ...]
    policy: Diffusers
    trainee: Trainee
    jury: tuple[Juror, ...]
    weights: Mapping[str, float]
    """Weight of each of the jury's dimensions in the overall preference."""


def chosen_models(roster: str, jury: str, *, medium: Medium, brought: Brought, method: Tuning) -> ChosenModels:
    """Reads roster and jury, and finds the policy; raises ConfigError for a roster of another medium or no such policy."""
    drawn = kinds.generators(roster)
    for one in drawn:
        if one.medium != medium:
            other = "align_video" if medium == "image" else "align_image"
            raise ConfigError(f"--roster {roster}: {one.name} makes a {one.medium}; use the recipe {other}, or take it out")
    names = [one.name for one in drawn]
    if brought.policy and brought.policy not in names:
        raise ConfigError(f"--policy {brought.policy}: the roster has {', '.join(names)}")
    policy = drawn[names.index(brought.policy)] if brought.policy else drawn[0]
    if not isinstance(policy, Diffusers) or policy.lora is not None:
        why = "it already carries a LoRA" if isinstance(policy, Diffusers) else "its weights are not here"
        raise ConfigError(f"--policy {policy.name} cannot be tuned: {why}; name a generator of kind diffusers without one")
    if brought.architecture and brought.architecture not in ARCHITECTURES:
        raise ConfigError(f"--architecture {brought.architecture}: choose one of {', '.join(ARCHITECTURES)}")
    place = f"--policy {policy.name}: give --architecture, or weights in a folder"
    family, size = family_of(policy.weights, size=brought.architecture or None, flag=place)
    jurors = kinds.jurors(jury)
    trainee = Trainee(family, size, method.adapter, method.rank)
    return ChosenModels(drawn, policy, trainee, jurors, weights_of(brought.dimensions, jurors))


def align(
    cast: ChosenModels, prompts: str, *, frames: tuple[int, ...], brought: Brought, method: Tuning, setup: Setup
) -> ApplyGate:
    """The whole DAG: every generator renders, the jury compares, the policy is tuned on it, held-out prompts tell."""
    source = Texts(
        path=prompts,
        column=brought.prompt_column,
        task_column=brought.task_column or None,
        evaluation_share=brought.held_out,
    )
    captions = WritePrompts(source=source, duplicates="merge")
    trainee, policy = cast.trainee, cast.policy
    require_lengths([length for length in frames if length > 1], type(trainee.family))
    buckets = _buckets(cast, frames, method=method)
    previews = setup.previews(buckets.area, frames=frames, multiple=buckets.multiple)
    roster = cast.roster if brought.other_samples else (policy,)
    animated = _animated(captions, roster, brought)
    loop = labelled_pairs(
        captions,
        roster=roster,
        jury=cast.jury,
        policy=trainee.family,
        buckets=buckets,
        samples={one.name: brought.policy_samples if one is policy else brought.other_samples for one in roster},
        per_prompt=brought.other_pairs,
        focus=(policy.name,),
        quota=quota_of(brought.quota, roster),
        animated=animated,
        resources=brought.rendering(),
        judging=brought.judging(),
        encoding=Resources(workers=setup.encode_workers, gpus=setup.encode_gpus),
        weights=cast.weights,
        dtype=setup.dtype,
        texts=previews.texts,
    )
    loss = method.loss(trainee)
    require_draws(setup.draws, loss)
    examples = Examples(labels=loop.labels, encoded=loop.encoded, arena=loop.arena if method.margin == "arena" else None)
    sources = (policy.name,) if brought.own_pairs_only else ()
    trained = tuned(examples, trainee, loss, method.run(), setup=setup, previews=previews, sources=sources)
    measured = _measured(captions, cast, trained, animated, brought)
    report = Report(labels=loop.labels, arena=loop.arena, tune=trained, evaluate=measured)
    return ApplyGate(evaluate=measured, report=report)


def _animated(captions: WritePrompts, roster: Sequence[Generator], brought: Brought) -> Animated | None:
    """The picture-to-clip generators, and the stage that renders what their clips begin with, for all prompts."""
    if not (brought.animate or brought.first_frames):
        return None
    if roster[0].medium == "image":
        raise ConfigError("--animate and --first-frames are of align_video: this recipe makes pictures")
    names = [one.name for one in roster]
    for name in brought.animate:
        if name not in names:
            raise ConfigError(f"--animate {name}: the roster has {', '.join(names)}")
    if not (brought.animate and brought.first_frames):
        raise ConfigError("--animate and --first-frames belong together: who begins with a picture, and who makes it")
    painters = kinds.generators(brought.first_frames, flag="--first-frames")
    if len(painters) != 1 or painters[0].medium != "image":
        raise ConfigError(f"--first-frames {brought.first_frames}: give a list with one generator of pictures")
    pictures = Render(
        prompts=captions,
        roster=painters,
        splits=("train", "evaluation"),
        resources=brought.rendering(),
        label="first-frames",
    )
    return Animated(brought.animate, pictures)


def _measured(
    captions: WritePrompts, cast: ChosenModels, trained: Tune, animated: Animated | None, brought: Brought
) -> Evaluate:
    """Policy and tuned policy on the held-out prompts, by the jury and by measures that did not teach."""
    if not (brought.evaluation_jury or brought.scorers):
        raise ConfigError(
            "--evaluation-jury: give jurors or --scorers that do not teach the policy; without them nobody would notice "
            "that it has only learned to please the jury"
        )
    jurors = kinds.jurors(brought.evaluation_jury, flag="--evaluation-jury") if brought.evaluation_jury else ()
    try:
        return evaluated(
            captions,
            (cast.policy, tuned_arm(cast.policy, trained)),
            jury=cast.jury,
            scorers=kinds.scorers(brought.scorers) if brought.scorers else (),
            held_out_jury=jurors,
            weights=cast.weights,
            animated=animated and _with_arm(animated, cast.policy),
            seed=brought.evaluation_seed,
            resources=brought.rendering(),
            judging=brought.judging(),
        )
    except ConfigError as error:
        if "--" in str(error):
            raise
        raise ConfigError(f"--evaluation-jury {brought.evaluation_jury}: {error}") from error


def _with_arm(animated: Animated, policy: Generator) -> Animated:
    """The tuned policy animates where the policy does."""
    tuned = (f"{policy.name}-tuned",) if policy.name in animated.names else ()
    return Animated((*animated.names, *tuned), animated.pictures)


def tuned_arm(policy: Diffusers, trained: Tune) -> Diffusers:
    """The policy with what tuning trained: a LoRA beside its weights, or weights in their place."""
    part = "lora" if trained.adapter.kind == "lora" else "weights"
    return policy.model_copy(update={"name": f"{policy.name}-tuned", part: Made(stage=trained)})


def _buckets(cast: ChosenModels, frames: tuple[int, ...], *, method: Tuning) -> Buckets:
    """Shapes around the area that the policy renders, or the one asked for."""
    family, policy = cast.trainee.family, cast.policy
    rendered = (policy.height or 0) * (policy.width or 0)
    area = method.side**2 if method.side else rendered
    if not area:
        raise ConfigError(f"--side: {policy.name} does not say height and width; add them to the roster, or give --side")
    clips = policy.medium == "video"
    multiple = family.size_multiple if clips else max(family.size_multiple, min(64, math.isqrt(area)))
    return Buckets(area=area, multiple=multiple, frames=frames, rate=family.frame_rate if clips else None)
