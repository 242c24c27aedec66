"""Stage `tune`: the policy is fine-tuned on the jury's preferences, by Flow-DPO unless told otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from actors.engines.training import EngineOptions
from actors.trainer import EXPORT, TrainerOptions, Training, read_curve, train
from infra.dag import Context, Resources, TableStage
from infra.files import Folder
from infra.fit import fit
from pipelines.algorithms.diffusion.flow import TimeSampler, UniformTimes
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.models.policy import Adapter, LoRA
from pipelines.schemas import TuneStep
from pipelines.stages.label import Label
from pipelines.stages.preference import DecidedPairs, PreferenceObjective, decided_pairs
from pipelines.stages.render import Render

PAIRS = "pairs"


class Tune(TableStage):
    """Labels and pictures in; the training curve out, the trained adapter or pipeline as weights. Ties are dropped."""

    name: ClassVar = "tune"
    row: ClassVar = TuneStep

    labels: Label
    pictures: Render
    sources: tuple[str, ...] = ()
    "Learn only from pairs of which both pictures are by these generators; from all by default."
    policy: Folder
    "The generator to train: a folder that diffusers' save_pretrained wrote."
    method: FlowDPO = FlowDPO(beta=200.0)
    "The loss. beta 200 suits the miniature; 500 and more, large models."
    adapter: Adapter = LoRA()
    "What is trained: low-rank additions, or everything."
    times: TimeSampler = UniformTimes()
    "How noise levels are drawn."
    trainer: TrainerOptions = TrainerOptions(learning_rate=1e-3, engine=EngineOptions(zero=1))
    "Steps, batch, learning rate, engine."
    resources: Resources = Field(Resources(workers=2), exclude=True)

    def run(self, context: Context) -> Iterator[TuneStep]:
        """One row an optimiser step, in order."""
        pairs = self._pairs(context)
        context.metric("pairs", len(pairs))
        pairs.save(context.scratch / PAIRS)
        objective = PreferenceObjective(
            policy_folder=self.policy.local.resolve(),
            pairs_folder=context.scratch.resolve() / PAIRS,
            method=self.method,
            adapter=self.adapter,
            times=self.times,
        )

        def heard(metrics: dict[str, Any]) -> None:
            note = f"loss {metrics['loss']:.4f}, implicit accuracy {metrics['implicit_accuracy']:.3f}"
            context.progress(metrics["step"], self.trainer.steps, note)

        checkpoint = fit(
            train,
            Training(objective, self.trainer),
            workers=self.resources.workers,
            storage=context.scratch,
            name=f"tune-{self.key}",
            resources=self.resources,
            max_failures=self.resources.max_restarts,
            on_report=heard,
        )
        shutil.copytree(checkpoint / EXPORT, context.weights_out, dirs_exist_ok=True)
        for row in read_curve(checkpoint):
            yield TuneStep(**row)

    def _pairs(self, context: Context) -> DecidedPairs:
        columns = ["id", "prompt_id", "text", "picture_a", "picture_b", "choice", "generator_a", "generator_b"]
        labels = context.table(self.labels, columns)
        if self.sources:
            known = pa.array(self.sources, pa.string())
            ours = pc.and_(pc.is_in(labels["generator_a"], known), pc.is_in(labels["generator_b"], known))
            labels = labels.filter(ours)
        return decided_pairs(labels, context.table(self.pictures, ["id", "image"]))
