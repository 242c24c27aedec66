"""The judge stage against the same jurors in a bare loop, in one run."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from actors.executor import RayExecutor
from infra.dag.compute import StoreInputs
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.stage import Resources
from infra.store.artifacts import Store
from pipelines.miniature import generators, jurors
from pipelines.miniature.prompts import Grammar
from pipelines.stages.judge import Judge, JudgeWorker
from pipelines.stages.pair import PairSamples
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render
from tests.benchmarks.measure import Result
from tests.benchmarks.quiet import Quiet

PROMPTS = 900
"""As many as the miniature has: loading the jurors is part of the stage, once, however many votes there are."""


def stage(prompts: int) -> Judge:
    """All jurors on the pairs of two generators, one worker."""
    roster = generators.shipped()[:2]
    resources = Resources(workers=1, resident=8)
    pictures = Render(
        prompts=WritePrompts(source=Grammar(train=prompts, evaluation=6)),
        roster=roster,
        samples={generator.name: 2 for generator in roster},
        resources=resources,
    )
    return Judge(pairs=PairSamples(pictures=pictures), pictures=pictures, jury=jurors.shipped(), resources=resources)


def run(prompts: int = PROMPTS) -> list[Result]:
    """Ratio of votes per second."""
    import torch

    torch.set_num_threads(1)
    with TemporaryDirectory() as name, RayExecutor(workers=1) as executor:
        runner = Runner(Store(Path(name)), executor, Quiet(), recipe="judge")
        runner.run(stage(6), Selection())
        made = stage(prompts)
        runner.run(made.pairs, Selection())
        start = time.perf_counter()
        runner.run(made, Selection(only="judge"))
        staged = runner.store.artifact(made).record.computed_rows / (time.perf_counter() - start)

        inputs = StoreInputs(runner.store)
        cells = made.cells(inputs).sort_by("id")
        worker = JudgeWorker(made.jury, inputs.lookup(made.pictures), medium="image", resident=8)
        worker.open("cpu", inputs)
        worker.run(cells.slice(0, 8))
        start = time.perf_counter()
        count = 0
        for first in range(0, cells.num_rows, made.shard_rows):
            count += len(worker.run(cells.slice(first, made.shard_rows)))
        loop = count / (time.perf_counter() - start)
    detail = {"votes": count, "bare": round(loop, 1), "stage": round(staged, 1)}
    return [Result("judge: stage / bare loop", staged / loop, ">= 0.95", detail)]
