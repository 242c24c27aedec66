"""Stage `zoo`: gathers everything that is shipped, measures the generators on held-out captions, writes the cards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from actors.device import device_of
from infra.dag.source import commit
from infra.dag.stage import Context, TableStage
from infra.identity import dumps, seed_of
from infra.store.files import Folder
from pipelines.algorithms.metrics.geneval import overall, task_accuracies
from pipelines.miniature.generators import MiniatureGenerator
from pipelines.miniature.rows import ZooScore
from pipelines.miniature.stages.pretrain import PretrainGenerator
from pipelines.miniature.stages.train_juror import TrainJuror
from pipelines.miniature.world.checker import check
from pipelines.miniature.world.grammar import Caption, captions
from pipelines.models.generators.generator import Request

GUIDANCES = (1.0, 2.0)


class GatherZoo(TableStage):
    """Trained generators and jurors in; strict scores by task out, and one folder per model, with its card, as weights."""

    name: ClassVar = "zoo"
    row: ClassVar = ZooScore

    generators: tuple[PretrainGenerator, ...]
    jurors: tuple[TrainJuror, ...]
    captions: int = Field(1000, ge=6)
    "Held-out captions a generator is measured on."
    seed: int = Field(0, ge=0)
    "Seed of the measured pictures."

    def run(self, context: Context) -> Iterator[ZooScore]:
        """Rows by generator, guidance and task."""
        held_out = captions(self.captions, split="evaluation", seed=0)
        for stage in self.generators:
            for snapshot in stage.options.snapshots:
                folder = context.weights_out / snapshot.name
                shutil.copytree(context.weights(stage) / snapshot.name, folder)
                scores = [s for g in GUIDANCES for s in self._measure(context, snapshot.name, folder, g, held_out)]
                settings = stage.options.model_dump(mode="json")
                (folder / "card.md").write_text(card(snapshot.name, settings, self.captions, scores))
                yield from scores
        for stage in self.jurors:
            folder = context.weights_out / stage.called
            shutil.copytree(context.weights(stage), folder)
            (folder / "card.md").write_text(card(stage.called, stage.options.model_dump(mode="json"), 0, []))

    def _measure(
        self, context: Context, name: str, folder: Path, guidance: float, held_out: list[Caption]
    ) -> list[ZooScore]:
        generator = MiniatureGenerator(name=name, weights=Folder(path=str(folder)), guidance=guidance)
        opened = generator.open(device_of(self.resources), context)
        pictures = opened.pictures([Request(c.text, seed_of("zoo", c.text, self.seed)) for c in held_out])
        strict = [check(p, c.expectation).strict for p, c in zip(pictures, held_out, strict=True)]
        tasks = [c.task for c in held_out]
        by_task = task_accuracies(tasks, correct=strict)
        counts = {task: tasks.count(task) for task in by_task}
        rows = [ZooScore(name, guidance, task, share, counts[task]) for task, share in by_task.items()]
        return [*rows, ZooScore(name, guidance, "overall", overall(by_task), int(np.sum(list(counts.values()))))]


def card(name: str, settings: dict[str, Any], n: int, scores: list[ZooScore]) -> str:
    """What a model is, which commit and settings made it, and how it scores."""
    lines = [f"# {name}", "", f"Made by `salon run zoo` at commit {commit() or 'unknown'}.", ""]
    if scores:
        lines += [f"Strict score of the exact checker, {n} held-out captions, 8 steps:", ""]
        lines += ["| guidance | task | strict | n |", "|---|---|---|---|"]
        lines += [f"| {s.guidance:g} | {s.task} | {s.strict:.3f} | {s.pictures} |" for s in scores]
        lines.append("")
    return "\n".join([*lines, "Settings:", "", f"    {dumps(settings)}", ""])
