"""Stage `reward`: a latent reward model on the backbone of a generator learns preferences at every noise level."""

from __future__ import annotations

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
from actors.training.options import TrainerOptions
from actors.training.trainer import EXPORT, Training
from infra.config import ConfigError
from infra.dag.stage import Context, TableStage
from infra.store.tables import from_table
from pipelines.algorithms.diffusion.flow import TimeSampler, UniformTimes
from pipelines.algorithms.reward.bradley_terry import BradleyTerry, BradleyTerryTies
from pipelines.models.families.base import Family
from pipelines.models.rewards.reward import RewardModel
from pipelines.models.rewards.task_tokens import TaskTokenReward
from pipelines.models.scorers.trained import TrainedReward
from pipelines.models.weights import Made
from pipelines.schemas.curves import Curve
from pipelines.schemas.training import RewardAccuracy, RewardBand, RewardScore
from pipelines.stages.examples import Examples
from pipelines.training.data import TrainingData
from pipelines.training.held_out import HeldOutPairs, held_out_pairs
from pipelines.training.noise import NoiseDraws
from pipelines.training.reward import SCORES_FILE, Measurement, PairLoss, PairNoise, RewardObjective, measure
from pipelines.training.stage import curve_of, launched, placed_policy, run_length, run_training, training_data


class Reward(TableStage):
    """Examples in; accuracy by noise level on held-out prompts out, the model as weights, its curve beside."""

    name: ClassVar = "reward"
    version: ClassVar = 4
    row: ClassVar = RewardAccuracy
    tables: ClassVar[Mapping[str, type]] = {"curve": Curve, "scores": RewardScore, "bands": RewardBand}

    examples: Examples
    policy: Family
    "The generator whose denoiser is the backbone."
    model: RewardModel = TaskTokenReward()
    "The kind of reward model and its settings."
    loss: PairLoss = BradleyTerry()
    "Bradley-Terry, which leaves ties out, or its form with ties, which learns from them."
    times: TimeSampler = UniformTimes()
    "How noise levels are drawn; shift = generator follows the generator's own scheduler."
    pair_noise: PairNoise = "shared"
    "Whether both members of a pair get the same noise in training, or each its own."
    checkpointing: bool = Field(False, exclude=True)
    "Activations of the denoiser are computed again for the gradient and not kept; results are the same."
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
        encoded = self.examples.encoded
        policy = placed_policy(self.policy, encoded.encoders.family, context, stage=self.name)
        learnt, held = self._split(context)
        context.metric("pairs", {"train": learnt.num_rows, "held_out": held.num_rows})
        given: dict[str, Any] = {"encoded": encoded, "empty": encoded.text_id(""), "context": context}
        objective = RewardObjective(
            model=self.model,
            policy=policy,
            data=training_data(learnt, "learnt", **given),
            loss=self.loss,
            noise=NoiseDraws(self.times, draws=None),
            described=self.description,
            pair_noise=self.pair_noise,
            checkpointing=self.checkpointing,
        )
        trainer = self.trainer.resolved(learnt.num_rows)
        length = run_length(trainer, learnt.num_rows)
        checkpoint = run_training(self, Training(objective, trainer), context, length=length, logs=False)
        context.emit("curve", curve_of(checkpoint))
        aside = training_data(held, "held", **given)
        scores = self._measure(context, aside, policy, weights=checkpoint / EXPORT)
        context.emit("scores", scores)
        (dimension,) = self.model.dimensions
        pairs = HeldOutPairs.of(scores, aside.open(), dimension=dimension)
        context.emit("bands", pairs.in_bands(dimension=dimension))
        yield from pairs.at_times()

    def _measure(self, context: Context, held: TrainingData, policy: Family, *, weights: Path) -> list[RewardScore]:
        """Scores of the held-out pairs, on one worker with the device that the stage asks for."""
        job = Measurement(self.model, policy, weights, held, device=CUDA if self.resources.gpus else CPU)
        folder = launched(self, measure, job, context, name=f"held-out-{self.key}", workers=1, heard=None)
        return list(from_table(pq.read_table(folder / SCORES_FILE), RewardScore))

    def _split(self, context: Context) -> tuple[pa.Table, pa.Table]:
        """The examples of the prompts to learn from, and of those put aside.

        Ties are measured in any case, and are learnt from where the loss does.
        """
        table = context.table(self.examples)
        prompts = table["prompt_id"].to_pylist()
        aside = held_out_pairs(prompts, share=self.held_out)
        decided = np.array(pc.invert(table["tie"]), dtype=bool)
        learnt = ~aside if isinstance(self.loss, BradleyTerryTies) else ~aside & decided
        if not learnt.any() or not (aside & decided).any():
            raise ConfigError(
                f"reward: {len(set(prompts))} prompts with decided pairs cannot be split with held_out = "
                f"{self.held_out}; raise --prompts"
            )
        return table.filter(pa.array(learnt)), table.filter(pa.array(aside))
