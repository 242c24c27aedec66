"""Stage `reward`: a latent reward model on the policy's backbone learns the jury's preferences at every noise level."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from actors.training.engines.engine import EngineOptions
from actors.training.launch import fit, here
from actors.training.options import TrainerOptions
from actors.training.trainer import EXPORT, Training, read_curve, train
from infra.config import ConfigError
from infra.dag.stage import Context, TableStage
from infra.identity import canonical, dumps, seed_of
from infra.store.files import Folder
from pipelines.algorithms.diffusion.flow import TimeSampler, UniformTimes
from pipelines.algorithms.reward.bradley_terry import BradleyTerry
from pipelines.schemas.training import RewardAccuracy, RewardStep
from pipelines.stages.examples import Examples
from pipelines.training.data import Materials, Randomness
from pipelines.training.reward import RewardObjective, accuracy_by_time


class Reward(TableStage):
    """Examples in; accuracy by noise level on held-out prompts out, the model as weights, its curve beside."""

    name: ClassVar = "reward"
    row: ClassVar = RewardAccuracy
    tables: ClassVar[Mapping[str, type]] = {"curve": RewardStep}

    examples: Examples
    policy: Folder
    "The generator whose backbone it stands on: a folder that diffusers' save_pretrained wrote."
    loss: BradleyTerry = BradleyTerry()
    task_tokens: int = Field(2, ge=1, le=64)
    "Learnable tokens beside the caption's."
    times: TimeSampler = UniformTimes()
    "How noise levels are drawn."
    held_out: float = Field(0.2, gt=0, lt=1)
    "Share of the training prompts whose pairs measure and do not train, chosen by hash."
    trainer: TrainerOptions = TrainerOptions(
        steps=200, learning_rate=5e-4, schedule="cosine", warm_up=20, engine=EngineOptions(kind="torch")
    )
    "Steps, batch, learning rate, engine."

    def run(self, context: Context) -> Iterator[RewardAccuracy]:
        """One row a noise level."""
        from pipelines.models.rewards.task_tokens import load_reward

        learnt, held = self._split(context)
        context.metric("pairs", {"train": learnt.num_rows, "held_out": held.num_rows})
        encoded = context.lookup(self.examples.encoded)
        materials = {name: Materials(context.scratch.resolve() / f"{name}.parquet", encoded) for name in ("learnt", "held")}
        for name, table in (("learnt", learnt), ("held", held)):
            Materials.write(table, materials[name].examples)
        checkpoint = self._train(context, materials["learnt"])
        curve = read_curve(checkpoint)
        context.emit("curve", [RewardStep(row["step"], row["loss"], row["accuracy"]) for row in curve])
        shutil.copytree(checkpoint / EXPORT, context.weights_out, dirs_exist_ok=True)
        yield from accuracy_by_time(load_reward(context.weights_out), materials["held"].open())

    def _train(self, context: Context, materials: Materials) -> Path:
        objective = RewardObjective(
            policy_folder=self.policy.local.resolve(),
            materials=materials,
            loss=self.loss,
            randomness=Randomness(self.times, draws=None),
            task_tokens=self.task_tokens,
            described=json.loads(dumps(canonical(self.description))),
        )

        def heard(metrics: dict[str, Any]) -> None:
            note = f"loss {metrics['loss']:.4f}, accuracy {metrics['accuracy']:.3f}"
            context.progress(metrics["step"], self.trainer.steps, note)

        training = Training(objective, self.trainer)
        name = f"reward-{self.key}"
        if self.resources.workers == 1 and not self.resources.gpus:
            return here(train, training, folder=context.scratch / name, on_report=heard)
        return fit(
            train,
            training,
            workers=self.resources.workers,
            storage=context.scratch,
            name=name,
            resources=self.resources,
            max_failures=self.resources.max_restarts,
            on_report=heard,
        )

    def _split(self, context: Context) -> tuple[pa.Table, pa.Table]:
        """Examples with a winner: of the prompts to learn from, and of those put aside."""
        table = context.table(self.examples)
        table = table.filter(pc.invert(table["tie"]))
        prompts = table["prompt_id"].to_pylist()
        aside = np.array([seed_of("held out", prompt) % 1000 < 1000 * self.held_out for prompt in prompts], dtype=bool)
        if aside.all() or not aside.any():
            raise ConfigError(
                f"reward: {len(set(prompts))} prompts with decided pairs cannot be split with held_out = "
                f"{self.held_out}; raise --prompts"
            )
        return table.filter(pa.array(~aside)), table.filter(pa.array(aside))
