"""Recipe `miniature`: the whole loop in the miniature world, from captions to the report and the gate."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field

from actors.serving.transformers import TransformersEngine
from actors.serving.vllm import VllmEngine
from actors.training.engines.engine import EngineOptions
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
from pipelines.models.adapter import Full, LoRA
from pipelines.models.jurors.vlm import AnyEngine, VlmJuror
from pipelines.models.weights import Made
from pipelines.stages.arena import Arena
from pipelines.stages.encode import Encode, Encoders
from pipelines.stages.evaluate import Evaluate
from pipelines.stages.examples import Examples
from pipelines.stages.gate import Gated
from pipelines.stages.judge import Judge
from pipelines.stages.label import Label
from pipelines.stages.pair import PairSamples
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render
from pipelines.stages.report import Report
from pipelines.stages.reward import Reward
from pipelines.stages.score import ScoreSamples
from pipelines.stages.tune import Tune
from pipelines.training.buckets import Buckets

POLICY, EVALUATION = "policy", "evaluation"
ENGINES: dict[str, AnyEngine] = {"transformers": TransformersEngine(), "vllm": VllmEngine()}
SOURCES = (POLICY, "late", "middle")
"""Measured on training captions: pairs with much weaker generators teach to differ from them, and cost half the gain."""


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


def miniature(
    *,
    prompts: Annotated[int, Field(ge=6, le=3000, description="training captions")] = 900,
    evaluation: Annotated[int, Field(ge=6, le=1000, description="held-out captions")] = 1000,
    policy_samples: Annotated[
        int, Field(ge=1, le=64, description="pictures per prompt by the policy; others render one")
    ] = 4,
    sources: Annotated[
        tuple[str, ...],
        Field(description="generators the policy learns from (default: policy,late,middle)"),
    ] = (),
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
    adapter: Annotated[Literal["lora", "full"], Field(description="what tune trains: a LoRA or all weights")] = "full",
    zero: Annotated[Literal["0", "1", "2", "3"], Field(description="DeepSpeed ZeRO stage; 0: plain torch")] = "1",
    beta: Annotated[float, Field(gt=0, le=1e6, description="strength of the tie to the reference")] = 500.0,
    steps: Annotated[int, Field(ge=1, le=1_000_000, description="optimiser steps of tune")] = 200,
    batch: Annotated[int, Field(ge=1, le=65_536, description="pairs per optimiser step")] = 64,
    learning_rate: Annotated[
        float | None, Field(gt=0, le=1, description="highest learning rate (default: 2e-4 for full, 1e-3 for lora)")
    ] = None,
    reward_steps: Annotated[int, Field(ge=1, le=1_000_000, description="optimiser steps of the reward model")] = 100,
    held_out: Annotated[
        float, Field(gt=0, lt=1, description="share of training prompts that measure the reward model")
    ] = 0.1,
    workers: Annotated[int, Field(ge=1, le=1024, description="actors per row-wise stage")] = 2,
    tune_workers: Annotated[int, Field(ge=1, le=1024, description="training workers")] = 2,
    gpus: Annotated[float, Field(ge=0, le=16, description="GPUs per actor or training worker")] = 0.0,
) -> Gated:
    """prompts -> render -> pair -> judge -> label -> arena; encode -> examples -> reward, tune; evaluate, report, gate."""
    resources = Resources(workers=workers, gpus=gpus, resident=8)
    drawn = _chosen(roster, generators.shipped(guidance=guidance), "--roster")
    sources = sources or tuple(name for name in SOURCES if name in {one.name for one in drawn})
    _require_learnable(sources, drawn)
    voting = _chosen(jury, jurors.shipped(engine=ENGINES[juror_engine]), "--jury")
    base = next(one for one in generators.shipped() if one.name == POLICY)
    policy = MiniatureFamily(weights=base.weights)
    captions = WritePrompts(source=Grammar(train=prompts, evaluation=evaluation, seed=seed))
    pictures = Render(prompts=captions, roster=drawn, samples={POLICY: policy_samples}, resources=resources)
    paired = PairSamples(pictures=pictures, per_prompt=other_pairs, focus=sources)
    votes = Judge(pairs=paired, pictures=pictures, jury=voting, resources=resources)
    labels = Label(pairs=paired, votes=votes)
    arena = Arena(labels=labels)
    encoded = Encode(
        pairs=paired,
        pictures=pictures,
        encoders=Encoders(family=policy),
        buckets=Buckets(area=SIZE**2, multiple=SIZE),
        shard_rows=512,
        resources=resources,
    )
    examples = Examples(labels=labels, encoded=encoded)
    rate = learning_rate if learning_rate is not None else {"full": 2e-4, "lora": 1e-3}[adapter]
    engine = EngineOptions(kind="torch") if zero == "0" else EngineOptions(zero=int(zero))  # type: ignore[arg-type]
    tuned = Tune(
        examples=examples,
        sources=sources,
        policy=policy,
        architecture=ARCHITECTURE,
        method=FlowDPO(beta=beta),
        adapter=Full() if adapter == "full" else LoRA(),
        # The sampler of eight steps never goes below t = 0.3; what happens there only makes the policy drift.
        times=UniformTimes(low=0.25),
        trainer=TrainerOptions(
            steps=steps,
            batch=batch,
            learning_rate=rate,
            schedule="linear",
            warm_up=min(10, steps),
            seed=seed,
            engine=engine,
        ),
        resources=Resources(workers=tune_workers, gpus=gpus),
    )
    reward_trainer = TrainerOptions(
        steps=reward_steps,
        learning_rate=5e-4,
        schedule="cosine",
        warm_up=min(20, reward_steps - 1),
        seed=seed,
        engine=EngineOptions(kind="torch"),
    )
    reward = Reward(examples=examples, policy=policy, held_out=held_out, trainer=reward_trainer)
    # The same captions, seeds and samplers for both arms: they differ in their weights alone.
    arms = (base, base.tuned(Made(stage=tuned), adapter=adapter))
    shown = Render(
        prompts=captions,
        roster=arms,
        splits=("evaluation",),
        seeds="shared",
        seed=seed,
        resources=resources,
        label=EVALUATION,
    )
    shown_pairs = PairSamples(pictures=shown, label=EVALUATION)
    shown_votes = Judge(pairs=shown_pairs, pictures=shown, jury=voting, resources=resources, label=EVALUATION)
    scores = ScoreSamples(
        pictures=shown,
        prompts=captions,
        scorers=(Checker(), reward.scorer(noises=1)),
        resources=resources,
        label=EVALUATION,
    )
    evaluated = Evaluate(
        prompts=captions,
        pictures=shown,
        baseline=base.name,
        scores=(scores,),
        jury=Label(pairs=shown_pairs, votes=shown_votes, label=EVALUATION),
        seed=seed,
    )
    report = Report(labels=labels, arena=arena, reward=reward, tune=tuned, evaluate=evaluated)
    return Gated(evaluate=evaluated, report=report)
