"""Stage `reward`: a latent reward model on the backbone of a generator learns preferences at every noise level."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from actors.device import CPU, CUDA
from actors.training.engines.engine import EngineOptions
from actors.training.launch import Loop, OnReport, fit, here
from actors.training.options import TrainerOptions
from actors.training.trainer import EXPORT, Training, read_curve, train
from infra.config import ConfigError
from infra.dag.stage import Context, TableStage
from infra.identity import canonical, dumps, seed_of
from infra.store.tables import from_table
from pipelines.algorithms.diffusion.flow import TimeSampler, UniformTimes
from pipelines.algorithms.reward.bradley_terry import BradleyTerry, BradleyTerryTies
from pipelines.models.families.base import Family
from pipelines.models.rewards.reward import RewardModel
from pipelines.models.rewards.task_tokens import TaskTokenReward
from pipelines.models.scorers.trained import TrainedReward
from pipelines.models.weights import Made
from pipelines.schemas.training import RewardAccuracy, RewardScore, RewardStep
from pipelines.stages.examples import Examples
from pipelines.training.data import TrainingData
from pipelines.training.noise import NoiseDraws
from pipelines.training.reward import SCORES_FILE, Measurement, PairLoss, RewardObjective, accuracy_by_time, measure


class Reward(TableStage):
    """Examples in; accuracy by noise level on held-out prompts out, the model as weights, its curve beside."""

    name: ClassVar = "reward"
    version: ClassVar = 2
    row: ClassVar = RewardAccuracy
    tables: ClassVar[Mapping[str, type]] = {"curve": RewardStep, "scores": RewardScore}

    examples: Examples
    policy: Family
    "The generator whose denoiser is the backbone."
    model: RewardModel = TaskTokenReward()
    "The kind of reward model and its settings."
    loss: PairLoss = BradleyTerry()
    "Bradley-Terry, which leaves ties out, or its form with ties, which learns from them."
    times: TimeSampler = UniformTimes()
    "How noise levels are drawn."
    held_out: float = Field(0.2, gt=0, lt=1)
    "Share of the training prompts whose pairs measure and do not train, chosen by hash."
    trainer: TrainerOptions = TrainerOptions(
        steps=200, learning_rate=5e-4, schedule="cosine", warm_up=20, engine=EngineOptions(kind="torch")
    )
    "Steps, batch, learning rate, engine."

    @model_validator(mode="after")
    def _possible(self) -> Reward:
        self.model.refuse(self.policy)
        self.trainer.require_workers(self.resources.workers)
        if len(self.model.dimensions) != 1:
            raise ConfigError(
                f"reward: the model scores {', '.join(self.model.dimensions)}, but an example says which picture is better "
                "overall and not in which dimension; give a model of one dimension"
            )
        return self

    def scorer(self, *, name: str = "reward", t: float = 0.05, noises: int = 4) -> TrainedReward:
        """What this stage trains, as a scorer of clean samples at time t."""
        made = Made(stage=self)
        return TrainedReward(name=name, weights=made, model=self.model, backbone=self.policy, t=t, noises=noises)

    def run(self, context: Context) -> Iterator[RewardAccuracy]:
        """One row per noise level."""
        policy = self.policy.placed(context)
        policy.refuse_latents_of(self.examples.encoded.encoders.family.placed(context), stage=self.name)
        learnt, held = self._split(context)
        context.metric("pairs", {"train": learnt.num_rows, "held_out": held.num_rows})
        encoded = context.lookup(self.examples.encoded)
        empty = self.examples.encoded.text_id("")
        scratch = context.scratch.resolve()
        data = {name: TrainingData(scratch / f"{name}.arrow", encoded, empty) for name in ("learnt", "held")}
        for name, table in (("learnt", learnt), ("held", held)):
            data[name].write(table)
        checkpoint = self._train(context, data["learnt"], policy)
        curve = read_curve(checkpoint)
        context.emit("curve", [RewardStep(row["step"], row["loss"], row["accuracy"]) for row in curve])
        shutil.copytree(checkpoint / EXPORT, context.weights_out, dirs_exist_ok=True)
        scores = self._measure(context, data["held"], policy, weights=checkpoint / EXPORT)
        context.emit("scores", scores)
        yield from accuracy_by_time(scores, data["held"].open(), dimension=self.model.dimensions[0])

    def _measure(self, context: Context, held: TrainingData, policy: Family, *, weights: Path) -> list[RewardScore]:
        """Scores of the held-out pairs, on one worker with the device that the stage asks for."""
        job = Measurement(self.model, policy, weights, held, device=CUDA if self.resources.gpus else CPU)
        folder = self._launched(measure, job, context, name=f"held-out-{self.key}", workers=1, heard=None)
        return list(from_table(pq.read_table(folder / SCORES_FILE), RewardScore))

    def _train(self, context: Context, data: TrainingData, policy: Family) -> Path:
        objective = RewardObjective(
            model=self.model,
            policy=policy,
            data=data,
            loss=self.loss,
            noise=NoiseDraws(self.times, draws=None),
            described=json.loads(dumps(canonical(self.description))),
        )

        def heard(metrics: dict[str, Any]) -> None:
            note = f"loss {metrics['loss']:.4f}, accuracy {metrics['accuracy']:.3f}"
            context.progress(metrics["step"], self.trainer.steps, note)

        training = Training(objective, self.trainer)
        name = f"reward-{self.key}"
        return self._launched(train, training, context, name=name, workers=self.resources.workers, heard=heard)

    def _launched(
        self, loop: Loop, config: Any, context: Context, *, name: str, workers: int, heard: OnReport | None
    ) -> Path:
        """The last checkpoint of a loop: in this process, which holds no GPU, or on workers with the stage's resources."""
        if workers == 1 and not self.resources.gpus:
            return here(loop, config, folder=context.scratch / name, on_report=heard)
        return fit(
            loop,
            config,
            workers=workers,
            storage=context.scratch,
            name=name,
            resources=self.resources,
            max_failures=self.resources.max_restarts,
            on_report=heard,
        )

    def _split(self, context: Context) -> tuple[pa.Table, pa.Table]:
        """The examples of the prompts to learn from, and of those put aside.

        Ties are measured in any case, and are learnt from where the loss does.
        """
        table = context.table(self.examples)
        prompts = table["prompt_id"].to_pylist()
        aside = np.array([seed_of("held out", prompt) % 1000 < 1000 * self.held_out for prompt in prompts], dtype=bool)
        decided = np.array(pc.invert(table["tie"]), dtype=bool)
        learnt = ~aside if isinstance(self.loss, BradleyTerryTies) else ~aside & decided
        if not learnt.any() or not (aside & decided).any():
            raise ConfigError(
                f"reward: {len(set(prompts))} prompts with decided pairs cannot be split with held_out = "
                f"{self.held_out}; raise --prompts"
            )
        return table.filter(pa.array(learnt)), table.filter(pa.array(aside))
