"""Recipe `miniature`: the whole loop in the miniature world, from captions to the report and the gate."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from actors.serving.transformers import TransformersEngine
from actors.serving.vllm import VllmEngine
from actors.training.engines.engine import AdamW, EngineOptions
from actors.training.options import TrainerOptions
from infra.config import ConfigError
from infra.dag.stage import Resources
from pipelines.algorithms.diffusion.flow import UniformTimes
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.miniature import generators, jurors
from pipelines.miniature.family import ARCHITECTURE, MiniatureFamily
from pipelines.miniature.prompts import Grammar
from pipelines.miniature.scorers import Checker
from pipelines.miniature.world.draw import SIZE
from pipelines.models.generators.generator import Generator
from pipelines.models.generators.steered import Steered, Steering
from pipelines.models.jurors.vlm import AnyEngine, VlmJuror
from pipelines.models.weights import Made
from pipelines.recipes.parts.loop import LabelledPairs, evaluated, labelled_pairs
from pipelines.recipes.parts.miniature_online import Learning, reinforced
from pipelines.recipes.parts.model import Trainee
from pipelines.recipes.parts.offline import Run, tuned
from pipelines.recipes.parts.setup import Setup
from pipelines.recipes.parts.steering import SteeredArms, trained_reward
from pipelines.stages.examples import Examples
from pipelines.stages.gate import ApplyGate
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.report import Report
from pipelines.stages.reward import Reward
from pipelines.stages.sources import Trained
from pipelines.stages.tune import Tune
from pipelines.training.buckets import Buckets
from pipelines.training.previews import Previews

POLICY = "policy"
ENGINES: dict[str, AnyEngine] = {"transformers": TransformersEngine(), "vllm": VllmEngine()}
SOURCES = (POLICY, "late", "middle")
"""Measured on training captions: pairs with much weaker generators teach to differ from them, and cost half the gain."""


Online = Literal["none", "tapo", "step_grpo", "flow_grpo", "spo", "lpo", "dpo"]
RATES = {"full": 2e-4, "lora": 1e-3}
"""Learning rates by what is trained."""

Named = TypeVar("Named", generators.MiniatureGenerator, VlmJuror)


def _chosen(asked: tuple[str, ...], shipped: tuple[Named, ...], flag: str) -> tuple[Named, ...]:
    """The shipped models with these names, in the shipped order; all where none is named."""
    known = {model.name: model for model in shipped}
    for name in asked:
        if name not in known:
            raise ConfigError(f"{flag}: unknown name {name!r}; shipped are {', '.join(known)}")
    return tuple(model for model in shipped if not asked or model.name in asked)


def _require_learnable(sources: tuple[str, ...], drawn: tuple[generators.Generator, ...]) -> None:
    """Raises ConfigError where no pair could teach the policy: it must be in the roster and among the sources."""
    known = [one.name for one in drawn]
    for name in sources:
        if name not in known:
            raise ConfigError(f"--sources: {name!r} is not in the roster; it has {', '.join(known)}")
    if POLICY not in known:
        raise ConfigError(f"--roster {','.join(known)}: add {POLICY}, whose pictures it learns from")
    if POLICY not in sources:
        raise ConfigError(f"--sources {','.join(sources)}: add {POLICY}, whose own pairs it learns from")


def _loop(
    captions: WritePrompts,
    drawn: tuple[generators.MiniatureGenerator, ...],
    voting: tuple[VlmJuror, ...],
    base: generators.MiniatureGenerator,
    counts: tuple[int, int],
    sources: tuple[str, ...],
    resources: Resources,
) -> LabelledPairs:
    """From captions to labels and latents; `counts`: the policy's pictures, and other pairs, per prompt."""
    samples, other_pairs = counts
    return labelled_pairs(
        captions,
        roster=drawn,
        jury=voting,
        policy=MiniatureFamily(weights=base.weights),
        buckets=Buckets(area=SIZE**2, multiple=SIZE),
        samples={POLICY: samples},
        per_prompt=other_pairs,
        focus=sources,
        resources=resources,
    )


def _tuned(examples: Examples, base: generators.MiniatureGenerator, sources: tuple[str, ...], learning: Learning) -> Tune:
    """The policy, tuned on the pairs of the sources."""
    # The sampler of eight steps never goes below t = 0.3; what happens there only makes the policy drift.
    levels = UniformTimes(low=0.25)
    trainee = Trainee(MiniatureFamily(weights=base.weights), ARCHITECTURE, learning.adapter, rank=32, levels=levels)
    rate, warm_up = learning.rate or RATES[learning.adapter], min(10, learning.steps)
    run = Run(learning.steps, learning.batch, rate, schedule="linear", warm_up=warm_up, optimizer=AdamW())
    on: dict[str, Any] = {"workers": learning.resources.workers, "gpus": learning.resources.gpus, "zero": learning.zero}
    setup = Setup(**on, micro_batch=64, precision="fp32", seed=learning.seed)
    given: dict[str, Any] = {"setup": setup, "previews": Previews(), "sources": sources, "checkpointing": False}
    return tuned(examples, trainee, FlowDPO(beta=learning.beta), run, **given)


def _reward(examples: Examples, base: generators.MiniatureGenerator, held_out: float, *, steps: int, seed: int) -> Reward:
    """The reward model on the policy's backbone, measured on a share of the training prompts."""
    trainer = TrainerOptions(
        steps=steps,
        learning_rate=5e-4,
        schedule="cosine",
        warm_up=min(20, steps - 1),
        seed=seed,
        engine=EngineOptions(kind="torch"),
    )
    return Reward(examples=examples, policy=MiniatureFamily(weights=base.weights), held_out=held_out, trainer=trainer)


def _arms(
    base: generators.MiniatureGenerator, tuned: generators.MiniatureGenerator, reward: Reward, steering: Steering | None
) -> tuple[Generator, ...]:
    """The policy before and after tuning; with steering, both again as the reward steers them."""
    plain = (base, tuned)
    if steering is None:
        return plain
    given = {"height": SIZE, "width": SIZE, "dtype": "float32", "batch": generators.BATCH}
    steered = (
        Steered(
            name=f"{one.name}-{steering.kind.replace('_', '-')}",
            family=MiniatureFamily(weights=one.weights),
            lora=one.lora,
            steps=one.steps,
            guidance=one.guidance,
            reward=trained_reward(reward) if steering.asks else None,
            steering=steering,
            **given,
        )
        for one in plain
    )
    return (*plain, *steered)


def miniature(
    *,
    prompts: Annotated[int, Field(ge=6, le=3000, description="training captions")] = 900,
    evaluation: Annotated[int, Field(ge=6, le=1000, description="held-out captions")] = 1000,
    policy_samples: Annotated[int, Field(ge=1, le=64, description="pictures per prompt by the policy; others: one")] = 4,
    sources: Annotated[tuple[str, ...], Field(description="generators it learns from (default: policy,late,middle)")] = (),
    other_pairs: Annotated[
        int, Field(ge=1, le=64, description="most pairs per prompt with other generators, for the arena")
    ] = 2,
    roster: Annotated[tuple[str, ...], Field(description="generators, by name (default: all that are shipped)")] = (),
    jury: Annotated[tuple[str, ...], Field(description="jurors, by name (default: all that are shipped)")] = (),
    juror_engine: Annotated[
        Literal["transformers", "vllm"], Field(description="engine that runs the jurors")
    ] = "transformers",
    seed: Annotated[int, Field(ge=0, description="seed of captions, training and evaluation pictures")] = 0,
    guidance: Annotated[
        float, Field(ge=1, le=100, description="guidance scale of the rendered pictures; evaluation has none")
    ] = 1.0,
    online: Annotated[
        Online, Field(description="learn from own samples, rewarded by the reward model, instead of from pairs")
    ] = "none",
    adapter: Annotated[Literal["lora", "full"], Field(description="what is trained: a LoRA or all weights")] = "full",
    zero: Annotated[Literal["0", "1", "2", "3"], Field(description="DeepSpeed ZeRO stage; 0: plain torch")] = "1",
    beta: Annotated[float, Field(gt=0, le=1e6, description="KL weight: larger stays closer to the reference")] = 500.0,
    steps: Annotated[int, Field(ge=1, le=1_000_000, description="optimiser steps of tune")] = 200,
    batch: Annotated[int, Field(ge=1, le=65_536, description="pairs per optimiser step; with --online, prompts")] = 64,
    learning_rate: Annotated[
        float | None,
        Field(gt=0, le=1, description="highest rate (default: 2e-4 for full, 1e-3 for lora; online a quarter)"),
    ] = None,
    reward_steps: Annotated[int, Field(ge=1, le=1_000_000, description="optimiser steps of the reward model")] = 100,
    held_out: Annotated[
        float, Field(gt=0, lt=1, description="share of training prompts that measure the reward model")
    ] = 0.1,
    steering: SteeredArms = SteeredArms(),
    workers: Annotated[int, Field(ge=1, le=1024, description="actors per row-wise stage")] = 2,
    tune_workers: Annotated[int, Field(ge=1, le=1024, description="training workers")] = 2,
    gpus: Annotated[float, Field(ge=0, le=16, description="GPUs per actor or training worker")] = 0.0,
) -> ApplyGate:
    """prompts -> render -> pair -> judge -> label -> arena; encode -> examples -> reward, tune; evaluate, report, gate."""
    resources = Resources(workers=workers, gpus=gpus, resident=8)
    drawn = _chosen(roster, generators.shipped(guidance=guidance), "--roster")
    sources = sources or tuple(name for name in SOURCES if name in {one.name for one in drawn})
    _require_learnable(sources, drawn)
    voting = _chosen(jury, jurors.shipped(engine=ENGINES[juror_engine]), "--jury")
    base = next(one for one in generators.shipped() if one.name == POLICY)
    captions = WritePrompts(source=Grammar(train=prompts, evaluation=evaluation, seed=seed))
    loop = _loop(captions, drawn, voting, base, (policy_samples, other_pairs), sources, resources)
    examples = Examples(labels=loop.labels, encoded=loop.encoded)
    reward = _reward(examples, base, held_out, steps=reward_steps, seed=seed)
    learning = Learning(adapter, zero, beta, steps, batch, learning_rate, seed, Resources(workers=tune_workers, gpus=gpus))
    trained: Trained = _tuned(examples, base, sources, learning)
    if online != "none":
        trained = reinforced(captions, reward, base.weights, name=online, learning=learning)
    arms = _arms(base, base.tuned(Made(stage=trained), adapter=adapter), reward, steering.steering())
    scorers = (Checker(), reward.scorer(noises=1))
    measured = evaluated(captions, arms, jury=voting, scorers=scorers, seed=seed, resources=resources)
    report = Report(labels=loop.labels, arena=loop.arena, reward=reward, tune=trained, evaluate=measured)
    return ApplyGate(evaluate=measured, report=report)
