"""The whole loop on generators and jurors of the user's choice: what `align_image` and `align_video` share.

prompts -> render -> pair -> judge -> label -> arena -> encode -> examples -> (reference errors) -> tune -> evaluate ->
report -> gate. Their common flags are in `parts.brought`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from infra.config import ConfigError
from infra.dag.stage import Resources
from pipelines.algorithms.prompting.opinion import OVERALL
from pipelines.models.generators.diffusers import Diffusers
from pipelines.models.generators.generator import Generator, Medium
from pipelines.models.jurors.juror import Juror
from pipelines.models.prompts import Texts
from pipelines.models.sizes import ARCHITECTURES
from pipelines.models.weights import Made
from pipelines.recipes.parts import kinds
from pipelines.recipes.parts.brought import Brought, Tuning
from pipelines.recipes.parts.checks import require_draws, require_lengths
from pipelines.recipes.parts.given import quota_of, weights_of
from pipelines.recipes.parts.loop import Animated, evaluated, labelled_pairs
from pipelines.recipes.parts.model import Trainee, family_of
from pipelines.recipes.parts.offline import tuned
from pipelines.recipes.parts.setup import ENCODED_ROWS, Setup
from pipelines.stages.evaluate import Evaluate
from pipelines.stages.examples import Examples
from pipelines.stages.gate import ApplyGate
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render
from pipelines.stages.report import Report
from pipelines.stages.tune import Tune
from pipelines.training.buckets import Buckets

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def deciding(dimensions: Sequence[str], jury: Sequence[Juror], *, flag: str) -> dict[str, float]:
    """Weights of the dimensions that decide, {} where that is the overall one.

    Raises ConfigError for a dimension that no juror of this jury judges, and for a jury that judges nothing overall where
    no dimension is named: its votes would decide no pair, which would be known only after they are all cast.
    """
    found = weights_of(dimensions)
    known = {name for juror in jury for name in juror.dimensions}
    named = ", ".join(sorted(known))
    for name in found or {OVERALL: 1.0}:
        if name not in known:
            missing = f"--dimensions {name}" if found else "--dimensions: none is named, and overall is the default"
            raise ConfigError(f"{missing}: no juror judges it; the jury of {flag} has {named}")
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
    return ChosenModels(drawn, policy, trainee, jurors, deciding(brought.dimensions, jurors, flag="--jury"))


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
        quota=quota_of(brought.quota, [one.name for one in roster]),
        animated=animated,
        resources=brought.rendering(),
        judging=brought.judging(),
        encoding=Resources(workers=setup.encode_workers, gpus=setup.encode_gpus),
        weights=cast.weights,
        ranking=_ranking(cast.jury, brought),
        dtype=setup.dtype,
        texts=previews.texts,
        encoded_rows=ENCODED_ROWS,
    )
    loss = method.loss(trainee)
    require_draws(setup.draws, loss)
    examples = Examples(labels=loop.labels, encoded=loop.encoded, arena=loop.arena if method.margin == "arena" else None)
    sources = (policy.name,) if brought.own_pairs_only else ()
    trained = tuned(examples, trainee, loss, method.run(), setup=setup, previews=previews, sources=sources)
    measured = _measured(captions, cast, trained, animated, brought)
    report = Report(labels=loop.labels, arena=loop.arena, tune=trained, evaluate=measured)
    return ApplyGate(evaluate=measured, report=report)


def _ranking(jury: Sequence[Juror], brought: Brought) -> int:
    """Pictures per question of the jurors that rank; ConfigError where that cannot be, or none of them ranks."""
    if brought.ranking == 1:
        raise ConfigError("--ranking 1: a ranking is of 2 to 8 pictures; give 0 for pairs")
    if brought.ranking and not any(juror.ranks for juror in jury):
        raise ConfigError(f"--ranking {brought.ranking}: no juror of --jury ranks; give one `questionnaire: ranking`")
    return brought.ranking


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
    if jurors:
        deciding(brought.dimensions, jurors, flag="--evaluation-jury")
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
